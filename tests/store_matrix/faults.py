"""Everything that a store, and the way to it, may do to a request."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable

from botocore.exceptions import ClientError

from tests.store_matrix.exchange import Exchange
from tests.store_matrix.proxy import Fault, StoreProxy
from tests.store_matrix.store_request import Answer, StoreRequest

STATUSES = (
    (403, "AccessDenied"),
    (403, "ExpiredToken"),
    (403, "RequestTimeTooSkewed"),
    (404, "NoSuchBucket"),
    (409, "ConditionalRequestConflict"),
    (409, "OperationAborted"),
    (412, "PreconditionFailed"),
    (500, "InternalError"),
    (501, "NotImplemented"),
    (502, "BadGateway"),
    (503, "SlowDown"),
    (507, "XMinioStorageFull"),
)
# Well-formed, so that a parser of XML is content with it.
LOGIN_PAGE = b"<html><head><title>Welcome</title></head><body>Please log in.</body></html>"
SHORT_PATIENCE_SEC = 1.0


def error_answer(status: int, code: str) -> Answer:
    """As a store gives it."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        "<Message>Made up by the matrix.</Message><RequestId>1</RequestId></Error>"
    )
    headers = (("Content-Type", "application/xml"), ("x-amz-request-id", "1"))
    return Answer(status, headers, body.encode())


def login_page(*headers: tuple[str, str]) -> Answer:
    """Of a captive portal, or of a proxy that wants a password."""
    return Answer(200, (("Content-Type", "text/html"), *headers), LOGIN_PAGE)


def _has_body(request: StoreRequest) -> bool:
    return bool(request.body)


def _is_answered_with_body(request: StoreRequest) -> bool:
    return request.method != "HEAD"


def _answered(answer: Answer) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.reply(answer)


def _done_but_answered(answer: Answer) -> Callable[[Exchange], None]:
    def apply(exchange: Exchange) -> None:
        exchange.forward()
        exchange.reply(answer)

    return apply


def _reply_lost(exchange: Exchange) -> None:
    exchange.forward()
    exchange.drop()


def _reply_too_late(exchange: Exchange) -> None:
    exchange.forward()
    exchange.wait_for_hangup()


def _request_late(exchange: Exchange) -> None:
    """The shipper has given it up, and tries again, when it arrives."""
    exchange.wait_for_hangup()
    exchange.proxy.delay(exchange.request)


def _doubled_first(exchange: Exchange) -> None:
    answer = exchange.forward()
    exchange.forward()
    exchange.reply(answer)


def _doubled_second(exchange: Exchange) -> None:
    exchange.forward()
    exchange.reply(exchange.forward())


def _body_cut(exchange: Exchange) -> None:
    exchange.reply(exchange.forward_half(_end_sending))


def _end_sending(connection: http.client.HTTPConnection) -> None:
    connection.sock.shutdown(socket.SHUT_WR)


def _body_shortened(exchange: Exchange) -> None:
    exchange.reply(exchange.forward(exchange.request.body[:-1]))


def _body_flipped(exchange: Exchange) -> None:
    body = bytearray(exchange.request.body)
    body[len(body) // 2] ^= 1
    exchange.reply(exchange.forward(bytes(body)))


def _upload_gone(exchange: Exchange) -> None:
    """Somebody has aborted the upload: a lifecycle rule, for example."""
    request = exchange.request
    if request.upload_id is None:
        exchange.reply(error_answer(404, "NoSuchUpload"))
        return
    with contextlib.suppress(ClientError):  # gone already
        exchange.proxy.server.client.abort_multipart_upload(
            Bucket=request.bucket, Key=request.key, UploadId=request.upload_id
        )
    exchange.pass_on()


def _store_dies_before(exchange: Exchange) -> None:
    exchange.proxy.server.kill()
    exchange.drop()


def _store_dies_within(exchange: Exchange) -> None:
    exchange.reply(exchange.forward_half(lambda _: exchange.proxy.server.kill()))


def _store_dies_after(exchange: Exchange) -> None:
    exchange.forward()
    exchange.proxy.server.kill()
    exchange.drop()


def _store_comes_back(proxy: StoreProxy) -> None:
    proxy.server.stop()  # if it was not killed after all
    proxy.server.start()


def _refuse_handshake(connection: socket.socket) -> None:
    connection.close()


def _answer_without_tls(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def _next_handshake_closed(exchange: Exchange) -> None:
    exchange.proxy.spoil_next_handshake(_refuse_handshake)
    exchange.drop()


def _next_without_tls(exchange: Exchange) -> None:
    exchange.proxy.spoil_next_handshake(_answer_without_tls)
    exchange.drop()


def _next_untrusted(exchange: Exchange) -> None:
    exchange.proxy.spoil_next_handshake(exchange.proxy.show_untrusted_certificate)
    exchange.drop()


FAULTS = (
    Fault("request lost", Exchange.drop),
    Fault("request late", _request_late, read_timeout_sec=SHORT_PATIENCE_SEC),
    Fault("request doubled, first answer", _doubled_first),
    Fault("request doubled, second answer", _doubled_second),
    Fault("body cut", _body_cut, suits=_has_body),
    Fault("body shortened", _body_shortened, suits=_has_body),
    Fault("body flipped", _body_flipped, suits=_has_body),
    Fault("reply lost", _reply_lost),
    Fault("reply too late", _reply_too_late, read_timeout_sec=SHORT_PATIENCE_SEC),
    Fault(
        "reply cut",
        lambda exchange: exchange.reply_short(exchange.forward()),
        suits=_is_answered_with_body,
    ),
    Fault("reply cut in its head", lambda exchange: exchange.reply_half_head(exchange.forward())),
    *(
        Fault(f"{status} {code}", _answered(error_answer(status, code)))
        for status, code in STATUSES
    ),
    Fault("404 NoSuchUpload", _upload_gone),
    Fault("500 though done", _done_but_answered(error_answer(500, "InternalError"))),
    Fault("200 with an error", _answered(error_answer(200, "InternalError"))),
    Fault("200 with an error, though done", _done_but_answered(error_answer(200, "InternalError"))),
    Fault("200 login page", _answered(login_page())),
    Fault("200 login page with ETag", _answered(login_page(("ETag", '"5f3a-61c8"')))),
    Fault("TLS closed", _reply_lost, tls=True),
    Fault("TLS handshake closed", _next_handshake_closed, tls=True),
    Fault("TLS not spoken", _next_without_tls, tls=True),
    Fault("TLS certificate untrusted", _next_untrusted, tls=True),
    Fault("store dies before", _store_dies_before, end=_store_comes_back),
    Fault("store dies within", _store_dies_within, suits=_has_body, end=_store_comes_back),
    Fault("store dies after", _store_dies_after, end=_store_comes_back),
)
