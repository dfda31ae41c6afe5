"""The formats in which a stream can be written."""

from proxy.request import ChatRequest
from proxy.streaming_request import Format
from proxy.wire import Encoder
from proxy.wire.native import NativeEncoder
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_choices import ChoicesEncoder
from proxy.wire.ui import UIEncoder


def encoder_for(format: Format, request: ChatRequest) -> Encoder:
    """An encoder for one stream."""
    sources = request.sources
    several = len(sources) > 1
    if format == "ui":
        return UIEncoder(request.id, several=several)
    if format == "sse":
        return NativeEncoder()
    if several:
        return ChoicesEncoder(request.id, request.model, sources, include_usage=request.include_usage)
    return ChunkEncoder(request.id, request.model, include_usage=request.include_usage)
