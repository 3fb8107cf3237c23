"""FastAPI, pydantic and aiokafka: validate, send a record per request, answer when it is there.

As the libraries' own documents advise: models as parameters, a lifespan that owns the producer,
`send_and_wait`, acks=all with idempotence. A key is looked up by its SHA-256, as the gateway does.
It answers how many messages it took: it has nothing that could tell how many were new.
"""

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

from aiokafka import AIOKafkaProducer
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from serving import serve

NAMESPACE = uuid.UUID(int=1)
KEYS = {hashlib.sha256(os.environ["KEY"].encode()).digest(): "bench"}
TOPIC = "peer-captures"


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")


class Message(Model):
    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Field(max_length=100_000)]
    id: Annotated[str | None, Field(max_length=255)] = None
    sent_at: datetime | None = None


class User(Model):
    id: str | None = None
    name: str | None = None
    email: str | None = None
    plan: str | None = None
    created_at: datetime | None = None
    mrr: float | None = None


class Organization(Model):
    id: str | None = None
    name: str | None = None
    plan: str | None = None


class Session(Model):
    page_url: str | None = None
    device: str | None = None
    browser: str | None = None
    locale: str | None = None


class Capture(Model):
    conversation_id: Annotated[str, Field(min_length=1, max_length=255)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    user: User | None = None
    organization: Organization | None = None
    session: Session | None = None
    custom: dict[str, Any] | None = None


class Answer(Model):
    ok: bool
    conversation_id: uuid.UUID
    messages_stored: int
    analysis_queued: bool
    warnings: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BOOTSTRAP"], acks="all", enable_idempotence=True
    )
    await producer.start()
    app.state.producer = producer
    yield
    await producer.stop()


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer()


async def chatbot(found: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    known = KEYS.get(hashlib.sha256(found.credentials.encode()).digest())
    if known is None:
        raise HTTPException(401)
    return known


@app.post("/api/v1/capture", response_model=Answer)
async def post(capture: Capture, request: Request, _: Annotated[str, Depends(chatbot)]) -> Answer:
    conversation_id = uuid.uuid5(NAMESPACE, capture.conversation_id)
    await request.app.state.producer.send_and_wait(
        TOPIC, capture.model_dump_json().encode(), key=conversation_id.bytes
    )
    return Answer(
        ok=True,
        conversationId=conversation_id,
        messagesStored=len(capture.messages),
        analysisQueued=True,
        warnings=[],
    )


if __name__ == "__main__":
    serve(app, lifespan="on")
