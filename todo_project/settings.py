"""Settings, all from the environment or a `.env` file. docs/settings.md has the table."""

import ipaddress
import re
import secrets

from corsheaders.defaults import default_headers

from todo_project import cpus, database_url, env

# Core ---------------------------------------------------------------------------------------

DEBUG = env.boolean("DEBUG", default=False)

# A random key instead of a constant one: with DEBUG left on by mistake, nobody knows the key.
# Every worker inherits it from gunicorn's master.
SECRET_KEY = env.required("SECRET_KEY", secrets.token_urlsafe(50) if DEBUG else None)
# Former keys: what they signed or encrypted is still accepted, and nothing new is made with them.
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
if SECRET_KEY in SECRET_KEY_FALLBACKS:
    env.fail("SECRET_KEY_FALLBACKS", "contains SECRET_KEY itself: it is for former keys")

# With DEBUG and an empty list Django itself allows localhost and its subdomains.
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS")
if not ALLOWED_HOSTS and not DEBUG:
    env.fail("ALLOWED_HOSTS", "is required unless DEBUG=true")
for host in ALLOWED_HOSTS:
    if not re.fullmatch(r"\*|\.?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:.]+\]", host):
        env.fail("ALLOWED_HOSTS", f"{host!r} is not a host name such as example.com")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "corsheaders",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "todo_project",
    "tasks",
]

_host = r"([\w.-]+|\[[0-9a-fA-F:.]+\])"
_origin = rf"https?://{_host}(:[0-9]+)?"

CORS_ALLOWED_ORIGINS = env.words("CORS_ALLOWED_ORIGINS")
for origin in CORS_ALLOWED_ORIGINS:
    # It must equal what browsers send (RFC 6454 section 6.1).
    if not env.is_url(origin, _origin) or re.search("[A-Z]|^http:.*:80$|^https:.*:443$", origin):
        env.fail("CORS_ALLOWED_ORIGINS", f"{origin!r} is not an origin such as https://example.com")

# How many proxies append to X-Forwarded-For.
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", default=0, low=0, high=16)

RATE_LIMIT = env.text("RATE_LIMIT")
RATE_LIMIT_STORAGE_URL = env.text("RATE_LIMIT_STORAGE_URL")
if RATE_LIMIT:
    rate = "[1-9][0-9]{0,8}/(second|minute|hour|day)"
    rates = [re.fullmatch(rate, part.strip()) for part in RATE_LIMIT.split(";")]
    if len({match[1] for match in rates if match}) < len(rates):  # a bad rate, or a unit twice
        env.fail(
            "RATE_LIMIT", f"must be like 600/minute or 120/minute;5000/day, not {RATE_LIMIT!r}"
        )
if RATE_LIMIT_STORAGE_URL:
    redis_url = rf"rediss?://([^\s@/?#]*@)?{_host}(:[0-9]+)?(/[0-9]*)?"
    if not env.is_url(RATE_LIMIT_STORAGE_URL, redis_url):
        env.fail("RATE_LIMIT_STORAGE_URL", "must be a URL such as redis://host:6379/0")
    if not RATE_LIMIT:
        env.fail("RATE_LIMIT_STORAGE_URL", "is set without RATE_LIMIT")

ACCESS_LOG = env.boolean("ACCESS_LOG", default=True)
METRICS_PORT = env.integer("METRICS_PORT", default=0, low=1, high=65535)  # 0: no metrics

MIDDLEWARE = [
    *(["todo_project.api.observe.ObserveMiddleware"] if ACCESS_LOG or METRICS_PORT else []),
    "todo_project.api.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "todo_project.api.middleware.InputMiddleware",
    "todo_project.api.middleware.StaticMiddleware",
    *(["todo_project.auth.rate_limit.RateLimitMiddleware"] if RATE_LIMIT else []),
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # For the admin's paths only: the API has no sessions, cookies or messages.
    "todo_project.api.middleware.AdminCommonMiddleware",
    "todo_project.api.middleware.AdminSessionMiddleware",
    "todo_project.api.middleware.AdminCsrfMiddleware",
    "todo_project.api.middleware.AdminAuthenticationMiddleware",
    "todo_project.api.middleware.AdminMessageMiddleware",
    "todo_project.api.middleware.AdminAxesMiddleware",
]

ROOT_URLCONF = "todo_project.urls"
WSGI_APPLICATION = "todo_project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "todo_project.formats"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# InputMiddleware limits what can be uploaded; what is below the limit stays in memory.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

STATIC_URL = "/static/"
# From the installed packages: no collectstatic step that a deployment can forget.
WHITENOISE_USE_FINDERS = True

# Database -----------------------------------------------------------------------------------

url = env.required("DATABASE_URL", "sqlite:///db.sqlite3" if DEBUG else None)
DATABASES = {"default": database_url.parse("DATABASE_URL", url)}

# `migrate` goes past the pooler, where a session may have its own timeouts: a migration that
# cannot get its lock gives up, and does not make every request queue up behind it.
if unpooled := env.text("DATABASE_URL_UNPOOLED"):
    DATABASES["unpooled"] = database_url.parse("DATABASE_URL_UNPOOLED", unpooled)
    DATABASES["unpooled"]["TEST"] = {"MIRROR": "default"}
    if DATABASES["unpooled"]["ENGINE"] != DATABASES["default"]["ENGINE"]:
        env.fail("DATABASE_URL_UNPOOLED", "is of another kind than DATABASE_URL")

# Authentication of the API ------------------------------------------------------------------

AUTH_MODE = env.choice("AUTH_MODE", "none" if DEBUG else None, ("jwt", "none"))
JWT_SECRET = env.text("JWT_SECRET") or env.text("BETTER_AUTH_SECRET")
JWT_JWKS_URL = env.text("JWT_JWKS_URL")
JWT_ISSUER = env.text("JWT_ISSUER")
JWT_AUDIENCE = env.text("JWT_AUDIENCE")
JWT_LEEWAY = env.integer("JWT_LEEWAY", default=30, low=0, high=600)  # seconds
JWT_JWKS_MAX_STALE = env.integer("JWT_JWKS_MAX_STALE", 24 * 3600, low=0, high=365 * 24 * 3600)

if AUTH_MODE == "jwt":
    if JWT_JWKS_URL and env.text("JWT_SECRET"):
        env.fail("JWT_SECRET", "and JWT_JWKS_URL are both set: tokens have one kind of key")
    if JWT_JWKS_URL:
        # A `.env` shared with Better Auth has its secret as well, which then signs no tokens.
        JWT_SECRET = None
        if not env.is_url(JWT_JWKS_URL, _origin + r"(/\S*)?"):
            env.fail("JWT_JWKS_URL", "must be a URL such as https://example.com/jwks")
    elif JWT_SECRET is None:
        env.fail("JWT_SECRET", "or JWT_JWKS_URL is required with AUTH_MODE=jwt")
    elif len(JWT_SECRET.encode()) < 32:
        name = "JWT_SECRET" if env.text("JWT_SECRET") else "BETTER_AUTH_SECRET"
        env.fail(name, "must have 32 bytes or more (RFC 7518 section 3.2)")

MAX_TASKS_PER_OWNER = env.integer("MAX_TASKS_PER_OWNER", 0, low=1, high=999_999_999) or None

# REST framework: deny by default, and a view opts out itself -----------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "todo_project.auth.rate_limit.LimitedAuthentication"
        if RATE_LIMIT
        else "todo_project.auth.bearer.BearerAuthentication"
    ],
    "DEFAULT_THROTTLE_CLASSES": (
        ["todo_project.auth.rate_limit.OwnerThrottle"] if RATE_LIMIT else []
    ),
    "DEFAULT_PERMISSION_CLASSES": ["todo_project.auth.permissions.IsOwner"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "todo_project.api.negotiation.Negotiation",
    "DEFAULT_PARSER_CLASSES": ["todo_project.api.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "todo_project.api.renderers.JSONRenderer",
        *(["todo_project.api.browsable.Renderer"] if DEBUG else []),
    ],
    "DEFAULT_SCHEMA_CLASS": "todo_project.api.openapi.OperationSchema",
    "EXCEPTION_HANDLER": "todo_project.api.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

# The OpenAPI document -----------------------------------------------------------------------

SPECTACULAR_SETTINGS = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "Tasks",
    "VERSION": "1.0.0",
    "DESCRIPTION": (
        "A task service for many users, each of whom sees their own tasks alone. Every error is "
        "`application/problem+json` (RFC 9457). Every path answers the same with and without a "
        "trailing slash, and answers `OPTIONS`; where there is `GET` there is `HEAD`."
    ),
    "LICENSE": {"name": "MIT", "identifier": "MIT"},
    "SERVERS": [{"url": "/", "description": "Where this document is from"}],
    "TAGS": [
        {"name": "tasks", "description": "The tasks of one owner"},
        {"name": "health", "description": "For probes; without a token"},
    ],
    "POSTPROCESSING_HOOKS": ["todo_project.api.openapi.add_components"],
}

# Security -----------------------------------------------------------------------------------

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 0 if DEBUG else 365 * 24 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
LOGIN_REDIRECT_URL = "admin:index"
CSRF_FAILURE_VIEW = "todo_project.api.problems.csrf_failure"

SILENCED_SYSTEM_CHECKS = [
    "security.W003",  # MIDDLEWARE has a subclass of CsrfViewMiddleware,
    "axes.W002",  # and one of AxesMiddleware
    "security.W005",  # HSTS for subdomains is the decision of the domain's owner,
    "security.W021",  # and so is preloading
    "security.W008",  # TLS ends at the proxy, and a redirect would lose the body of a POST
]

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# Ten wrong passwords for one user name from one address lock that pair out for a quarter of an
# hour. The count is in the database, so that all processes and hosts share it.
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "todo_project.api.problems.locked_out"
AXES_USERNAME_CALLABLE = "todo_project.auth.client.username"
AXES_CLIENT_IP_CALLABLE = "todo_project.auth.client.address"
# By default each further try would restart the quarter of an hour, and one who goes on guessing
# would lock the operator out for good.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False

# No CORS_ALLOW_CREDENTIALS: the API has no cookies, and a page sends its token itself.
CORS_ALLOW_HEADERS = [
    *default_headers,
    "idempotency-key",
    "if-match",
    "if-none-match",
    "x-request-id",
]
CORS_EXPOSE_HEADERS = [
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
]

# gunicorn.conf.py's, read here so that a bad one stops every command -------------------------

PORT = env.integer("PORT", default=8000, low=1, high=65535)
if METRICS_PORT == PORT:
    env.fail("METRICS_PORT", "is PORT: metrics have a port of their own")
METRICS_HOST = env.text("METRICS_HOST") or "127.0.0.1"
try:
    ipaddress.ip_address(METRICS_HOST)
except ValueError:
    env.fail("METRICS_HOST", f"must be an IP address such as 127.0.0.1, not {METRICS_HOST!r}")
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", default=cpus.available(), low=1, high=256)
WEB_THREADS = env.integer("WEB_THREADS", default=4, low=1, high=256)
WEB_PIN_PROCESSES = env.boolean("WEB_PIN_PROCESSES", default=True)

# Logging ------------------------------------------------------------------------------------

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "gunicorn": {"()": "todo_project.logs.GunicornFilter"},
        "once_per_second": {"()": "todo_project.logs.OncePerSecondFilter"},
    },
    "formatters": {
        "stderr": {"()": f"todo_project.logs.{'Plain' if DEBUG else 'JSON'}Formatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "stderr"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Django's own handlers would print each record a second time, or send a mail.
        "django": {"handlers": [], "level": LOG_LEVEL, "propagate": True},
        # The access log has a line for each 4xx.
        "django.request": {"level": "ERROR"},
        "django.security": {"level": "ERROR"},
        "django.db.backends": {"level": "INFO"},
        "gunicorn.error": {"filters": ["gunicorn"], "level": LOG_LEVEL, "propagate": True},
        # A database that is away fails every request.
        "todo_project.api.problems": {"filters": ["once_per_second"]},
    },
}
