"""Odd paths over real sockets: what upstream's routes, which clean no path, answer."""

from __future__ import annotations

from tests.fakes.server import Caller, serving

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
NOWHERE = b"404 page not found\n"
UNKNOWN = b'"message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}'
REFUSED = b'"message":"the server does not allow this method on the requested resource","reason":"MethodNotAllowed"'
CASES = [
    *(("GET", path, 404, TEXT, NOWHERE) for path in ("//", "/index.html/", "/apis//", "/apis//x", "//api/v1/pods")),
    *(("GET", path, 404, TEXT, NOWHERE) for path in ("/healthz/", "/healthz/ping/", "/livez/", "/metrics/", "*")),
    *(("GET", path, 404, TEXT, NOWHERE) for path in ("/openapi/v2/", "//healthz", "/debug/", "/apis/x/y/z", "/apix")),
    *(("GET", path, 404, JSON, UNKNOWN) for path in ("/api//v1/pods", "/api/v1/../..", "/api/v1/..", "/api/v2")),
    *(("GET", f"/api/v1/{path}", 404, JSON, UNKNOWN) for path in ("pods/a", "namespaces/default//pods", "nope")),
    *(("GET", f"/api/v1/namespaces/default/{path}", 404, JSON, UNKNOWN) for path in ("nodes", "pods/a%2Fb", "/pods")),
    *((method, "/api/v1/pods/a", 404, JSON, UNKNOWN) for method in ("PUT", "PATCH", "DELETE")),
    ("GET", "/apis/apps//v1/deployments", 404, JSON, UNKNOWN),
    ("GET", "/openapi/v3/", 404, "", b""),
    ("GET", "/index.html", 200, JSON, b'{"paths":['),
    *(("GET", path, 200, JSON, b'"kind":"APIVersions"') for path in ("/api", "/api/", "/api//", "https://a/api")),
    *(("GET", path, 200, JSON, b'"kind":"APIGroup"') for path in ("/apis/apps", "/apis/apps/", "/apis/apps//")),
    *(("GET", f"/apis/apps/v1{end}", 200, JSON, b'"groupVersion":"apps/v1"') for end in ("", "/", "//")),
    *(("GET", f"/api/v1/{path}", 200, JSON, b'"PodList"') for path in ("namespaces/a/pods//", "namespaces%2Fa%2Fpods")),
    *(("GET", path, 400, TEXT, b"400 Bad Request") for path in ("/%zz", "/api/v1/%f", "/api/v1/namespaces/%")),
    *((method, "/api", 405, JSON, REFUSED) for method in ("POST", "TRACE")),
    *((method, "/api/v1", 405, JSON, REFUSED) for method in ("PUT", "DELETE")),
]


def test_odd_paths(run) -> None:  # type: ignore[no-untyped-def]
    async def body() -> None:
        async with serving() as server:
            for method, path, status, media, text in CASES:
                caller = Caller(server.ports[0])
                await caller.send(method, path)
                found = await caller.answer()
                shown = (found[0], found[1].get("content-type", ""), found[2])
                assert shown[:2] == (status, media) and text in shown[2], (method, path, shown)
                caller.close()

    run(body())
