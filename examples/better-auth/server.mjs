// A token issuer for the task service: Better Auth with e-mail and password, and its JWT plugin.
// Everything lives in memory, so a restart forgets every user, session and signing key.

import { randomBytes } from "node:crypto";
import { createServer } from "node:http";

import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";

const { env } = process;

// The one setting the task service needs: it takes only UUIDs as user ids, and Better Auth
// makes 32 random letters and digits unless told. GENERATE_ID=default leaves it untold.
const generateId = { uuid: "uuid", default: undefined };
const ids = env.GENERATE_ID || "uuid";
if (!Object.hasOwn(generateId, ids)) {
  throw new Error(`GENERATE_ID must be "uuid" or "default", not "${ids}"`);
}

const port = Number(env.PORT || 3000);
const baseURL = env.BETTER_AUTH_URL || `http://127.0.0.1:${port}`;

const auth = betterAuth({
  baseURL,
  // Encrypts the signing keys and signs the session cookie; it signs no token of the JWT plugin.
  secret: env.BETTER_AUTH_SECRET || randomBytes(32).toString("base64"),
  database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
  emailAndPassword: { enabled: true },
  advanced: { database: { generateId: generateId[ids] } },
  plugins: [
    jwt({ jwks: { rotationInterval: Number(env.JWKS_ROTATION_SECONDS) || undefined } }),
  ],
});

createServer(toNodeHandler(auth)).listen(port, env.HOST || "127.0.0.1", () => {
  console.log(`Better Auth listens on ${baseURL}`);
});
