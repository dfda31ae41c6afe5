"""The formats in which a stream can be written."""

from proxy.heading import Heading
from proxy.streaming_request import Format
from proxy.wire import Encoder
from proxy.wire.native import NativeEncoder
from proxy.wire.openai import ChunkEncoder
from proxy.wire.openai_choices import ChoicesEncoder
from proxy.wire.ui import UIEncoder


def encoder_for(format: Format, heading: Heading) -> Encoder:
    """An encoder for one stream."""
    if format == "ui":
        message_id = heading.message_id or heading.request_id
        return UIEncoder(message_id, several=heading.several, version=heading.ui, calls=heading.calls)
    if format == "sse":
        return NativeEncoder()
    return ChoicesEncoder(heading) if heading.several else ChunkEncoder(heading)
