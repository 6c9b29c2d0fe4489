"""The peer: FastAPI + SQLModel + asyncpg, written like their tutorials.

An async engine with a pool, a session per request by dependency, `response_model`, separate
models for table, input and output. Writes read the row, change it, commit and refresh.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Column, DateTime
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, desc, select
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_size=10,
    max_overflow=10,
)
new_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


def now() -> datetime:
    return datetime.now(UTC)


class TaskBase(SQLModel):
    title: str = Field(min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=2000)
    is_completed: bool = False


class Task(TaskBase, table=True):
    __tablename__ = "peer_task"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    user_id: uuid.UUID = Field(index=True)
    created_at: datetime = Field(
        default_factory=now, sa_column=Column(DateTime(timezone=True), nullable=False)
    )
    updated_at: datetime = Field(
        default_factory=now, sa_column=Column(DateTime(timezone=True), nullable=False)
    )


class TaskCreate(TaskBase):
    pass


class TaskReplace(SQLModel):
    title: str = Field(min_length=1, max_length=255)
    description: str | None = Field(max_length=2000)
    is_completed: bool


class TaskUpdate(SQLModel):
    title: str | None = Field(default=None, min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=2000)
    is_completed: bool | None = None


class TaskRead(TaskBase):
    id: uuid.UUID
    user_id: uuid.UUID
    created_at: datetime
    updated_at: datetime


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
app = FastAPI()


async def get_task(session: AsyncSession, user_id: uuid.UUID, task_id: uuid.UUID) -> Task:
    found = await session.exec(select(Task).where(Task.id == task_id, Task.user_id == user_id))
    task = found.first()
    if task is None:
        raise HTTPException(404, "Task not found")
    return task


async def save(session: AsyncSession, task: Task) -> Task:
    session.add(task)
    await session.commit()
    await session.refresh(task)
    return task


@app.get("/api/{user_id}/tasks", response_model=list[TaskRead])
async def list_tasks(user_id: uuid.UUID, session: Session) -> Sequence[Task]:
    query = select(Task).where(Task.user_id == user_id).order_by(desc(Task.created_at))
    return (await session.exec(query)).all()


@app.post("/api/{user_id}/tasks", response_model=TaskRead, status_code=201)
async def create_task(user_id: uuid.UUID, data: TaskCreate, session: Session) -> Task:
    return await save(session, Task.model_validate(data, update={"user_id": user_id}))


@app.get("/api/{user_id}/tasks/{task_id}", response_model=TaskRead)
async def read_task(user_id: uuid.UUID, task_id: uuid.UUID, session: Session) -> Task:
    return await get_task(session, user_id, task_id)


@app.put("/api/{user_id}/tasks/{task_id}", response_model=TaskRead)
async def replace_task(
    user_id: uuid.UUID, task_id: uuid.UUID, data: TaskReplace, session: Session
) -> Task:
    task = await get_task(session, user_id, task_id)
    task.sqlmodel_update(data.model_dump(), update={"updated_at": now()})
    return await save(session, task)


@app.patch("/api/{user_id}/tasks/{task_id}", response_model=TaskRead)
async def update_task(
    user_id: uuid.UUID, task_id: uuid.UUID, data: TaskUpdate, session: Session
) -> Task:
    task = await get_task(session, user_id, task_id)
    task.sqlmodel_update(data.model_dump(exclude_unset=True), update={"updated_at": now()})
    return await save(session, task)


@app.delete("/api/{user_id}/tasks/{task_id}", status_code=204)
async def delete_task(user_id: uuid.UUID, task_id: uuid.UUID, session: Session) -> None:
    await session.delete(await get_task(session, user_id, task_id))
    await session.commit()


@app.patch("/api/{user_id}/tasks/{task_id}/complete", response_model=TaskRead)
async def toggle_task(user_id: uuid.UUID, task_id: uuid.UUID, session: Session) -> Task:
    task = await get_task(session, user_id, task_id)
    task.is_completed = not task.is_completed
    task.updated_at = now()
    return await save(session, task)
