"""Kubernetes' API as far as helm reads it here: what kinds there are, and objects."""

import contextlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def plural(kind):
    kind = kind.lower()
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def path_of(version, *parts):
    return "/".join(["/api" if "/" not in version else "/apis", version, *parts])


def kinds(documents):
    """Answers that say of what kinds these documents are."""
    found = defaultdict(set)
    for each in documents:
        found[each["apiVersion"]].add(each["kind"])
    groups = defaultdict(list)
    for version in found:
        if "/" in version:
            groups[version.partition("/")[0]].append({"groupVersion": version, "version": version.partition("/")[2]})
    return {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [{"name": name, "versions": of, "preferredVersion": of[0]} for name, of in groups.items()],
        },
        **{
            path_of(version): {
                "kind": "APIResourceList",
                "groupVersion": version,
                "resources": [{"name": plural(kind), "namespaced": True, "kind": kind, "verbs": ["get"]} for kind in names],
            }
            for version, names in found.items()
        },
    }


def objects(documents, namespace):
    """Answers for each of these documents."""
    return {
        path_of(each["apiVersion"], "namespaces", namespace, plural(each["kind"]), each["metadata"]["name"]): each
        for each in documents
    }


@contextlib.contextmanager
def api(answers):
    """Its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(urlsplit(self.path).path)
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer or {"kind": "Status", "status": "Failure", "code": 404}).encode())

        def log_message(self, *told):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{serving.server_port}"
        finally:
            serving.shutdown()
