"""A Hub on 127.0.0.1, in memory: the real huggingface_hub client pushes to it and downloads from it.

    with HubServer() as hub:
        hub.add_user("ada", token="hf_ada")
        repo = hub.add_repo("ada/model", {"config.json": b"{}"})
        ...                                 # set HF_ENDPOINT to hub.url and HF_HUB_DISABLE_XET to 1
        repo.files, repo.commits            # what the repository holds now, and all that was ever pushed
        hub.requests                        # the requests so far, in order: method, path, token, status
        hub.fail("GET .*safetensors", 503)  # how to answer requests that match

It speaks the part of the Hub's HTTP protocol that models, Spaces and data sets need, with uploads by LFS. Spaces get
the hardware that the plan of their owner includes. It refuses with the Hub's statuses and error codes:
https://huggingface.co/docs/hub/api, https://github.com/git-lfs/git-lfs/tree/main/docs/api.

For browsers it sends the Hub's CORS headers. `hub.space_url("ada/page")` is the address of a static Space, on a port
of its own, as on the Hub it has a host of its own. With HubServer(cdn=True) files in LFS come from a second port, to
which `resolve` redirects as the Hub does to its CDN.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".png", ".bin", ".pt", ".pth", ".pkl")
LARGEST_REGULAR = 10 * 1024 * 1024  # bytes that plain git takes
LICENSES = {"mit", "apache-2.0", "other", "unknown", "cc-by-4.0", "cc0-1.0"}
NEW_REPO = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
HARNESSES = "/api/agent-harnesses"  # the client asks for this once a process, whatever it does: not worth recording

Files = dict[str, bytes]


# How many ZeroGPU Spaces each plan includes; None: an organization without one.
MOST_ZERO_GPU = {"free": 2, "pro": 10, "team": 50, None: 0}
NEEDS_PLAN = (
    "Static Spaces are free for everyone, but hosting Gradio and Docker Spaces on free cpu-basic requires a PRO "
    "subscription. Subscribe at https://huggingface.co/pro"
)
# What a page of another host may read of an answer.
EXPOSED = (
    "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,"
    "X-Linked-Size,X-Linked-ETag,X-Xet-Hash"
)
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}
NEEDS_PAYMENT = "You must add a payment method to your account to upgrade your space's hardware."


@dataclass(frozen=True)
class User:
    """An account, the organizations it may write for besides itself, and whether its token may write.

    plan: free or pro. confirmed: the e-mail address. days: the age of the account. group_plans: those that have one.
    """

    name: str
    token: str
    write: bool = True
    groups: tuple[str, ...] = ()
    plan: str = "free"
    confirmed: bool = True
    days: int = 365
    group_plans: dict[str, str] = field(default_factory=dict)

    def owns(self, namespace):
        return namespace in (self.name, *self.groups)


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one time; `id` has the 40 digits of a git commit. author: who made it."""

    id: str
    message: str
    files: Files
    author: str = ""


@dataclass
class Repo:
    """A repository. `refs` maps branches and tags to commit ids, `readers` may open a gated one.

    sdk, variables, hardware: of a Space.
    """

    name: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    downloads: int = 0
    readers: set[str] = field(default_factory=set)
    sdk: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self):
        return self.name.split("/")[0]

    @property
    def files(self) -> Files:
        """The files on the main branch."""
        return self.at("main").files

    def at(self, revision) -> Commit | None:
        """Return the commit that a branch, a tag or an id (or its beginning) names."""
        wanted = self.refs.get(revision, revision)
        known = [commit for commit in self.commits if commit.id.startswith(wanted)]
        return known[0] if known and len(wanted) >= 7 else None

    def commit(self, changes, message="Publish the model", branch="main", author=None) -> str:
        """Add a commit that changes these files (None removes one); return its id. author: by default the owner."""
        parent = self.at(branch) or self.at("main")
        files = (parent.files if parent else {}) | changes
        files = {path: content for path, content in files.items() if content is not None}
        content = [(path, hashlib.sha256(files[path]).hexdigest()) for path in sorted(files)]
        described = repr((self.kind, self.name, len(self.commits), message, content))
        commit = hashlib.sha1(described.encode()).hexdigest()
        self.commits.append(Commit(commit, message, files, author or self.namespace))
        self.refs[branch] = self.commits[-1].id
        return self.commits[-1].id


@dataclass
class Response:
    """An answer; `cut` sends only that many bytes of the body, `hang_up` closes the connection without an answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang_up: bool = False


@dataclass(frozen=True)
class Request:
    """A request, its `path` with the query, and the status of the answer."""

    method: str
    path: str
    token: str | None
    body: bytes = field(repr=False)
    status: int | None = None


class RefusedError(Exception):
    """An error answer. `code` is the X-Error-Code by which the client distinguishes refusals."""

    def __init__(self, status, message, code=None):
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = Response(status, json.dumps({"error": message}).encode(), headers)


class HubServer:
    """The server; it runs between `with` and `close`.

    `repos` is keyed by USER/NAME, Spaces by spaces/USER/NAME, data sets by datasets/USER/NAME.
    """

    def __init__(self, cdn=False):
        self.repos: dict[str, Repo] = {}
        self.users: dict[str, User] = {}  # by token
        self.requests: list[Request] = []
        self._uploads: Files = {}  # LFS objects by SHA-256
        self._actions: list[list] = []  # pattern, action, times left
        self._lock = threading.Lock()
        self._servers: list[ThreadingHTTPServer] = []
        self._space_urls: dict[str, str] = {}
        self.url = self._listen(self._serve)
        self.cdn_url = self._listen(self._serve) if cdn else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stop: from now on connections are refused."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _listen(self, serve) -> str:
        """Let `serve` answer requests on a free port; return the address."""

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self):
                serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815  # names that http.server demands

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    def space_url(self, name) -> str:
        """Return the address at which a static Space is served: the files of its main branch and nothing else."""
        if name not in self._space_urls:
            self._space_urls[name] = self._listen(lambda handler: self._serve_space(handler, name))
        return self._space_urls[name]

    def add_user(self, name, token, write=True, groups=(), **settings) -> User:
        self.users[token] = User(name, token, write, tuple(groups), **settings)
        return self.users[token]

    def add_repo(self, name, files=None, kind="model", **settings) -> Repo:
        """Create a repository as the Hub does, with a first commit, and a second that adds `files`."""
        repo = self.repos[_key(kind, name)] = Repo(name, kind, **settings)
        repo.commit(NEW_REPO, "initial commit")
        if files:
            repo.commit(files)
        return repo

    def on(self, pattern, action: "Callable[[Callable[[], Response]], Response]", times=None):
        """Let `action` answer the requests that `pattern` matches ("METHOD path").

        Its argument is a function that carries out the request and returns the proper answer; it need not call it.
        times: how many requests it answers; None for all. Of several actions that match, the latest is used.
        """
        self._actions.insert(0, [re.compile(pattern), action, times])

    def fail(self, pattern, status, times=None, **headers):
        """Answer with an error and do not carry out the request. headers: for example retry_after="3"."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.on(pattern, lambda answer: Response(status, b'{"error": "injected"}', headers), times)

    def corrupt(self, pattern, times=None):
        """Answer with wrong bytes of the right number."""
        self.on(pattern, lambda answer: _inverted(answer()), times)

    def cut(self, pattern, at, times=None):
        """Announce the whole body, send only its first bytes and close the connection."""
        self.on(pattern, lambda answer: replace(answer(), cut=at), times)

    def hang_up(self, pattern, times=None):
        """Carry out the request, and close the connection without an answer."""
        self.on(pattern, lambda answer: replace(answer(), hang_up=True), times)

    def heal(self):
        """Remove all actions of `on`, `fail`, `corrupt`, `cut` and `hang_up`."""
        self._actions.clear()

    def asked(self, pattern) -> list[Request]:
        """The requests so far that `pattern` matches ("METHOD path")."""
        return [request for request in self.requests if re.match(pattern, f"{request.method} {request.path}")]

    def downloads(self) -> list[str]:
        """The paths of the files of ada's models that were asked for: /ada/NAME/resolve/COMMIT/FILE, or /cdn/SHA256."""
        return [request.path for request in self.asked("GET /(cdn|ada/)")]

    # From here on: one request.

    def _serve(self, handler):
        length = int(handler.headers.get("Content-Length", 0))
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(handler.command, handler.path, token, handler.rfile.read(length))
        with self._lock:  # one at a time: nothing here can happen in between
            response = self._act(request, lambda: self._answer(request, handler.headers))
            if request.path != HARNESSES:
                self.requests.append(replace(request, status=None if response.hang_up else response.status))
        if response.hang_up:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        origin = handler.headers.get("Origin")
        allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": EXPOSED}
        response.headers |= allowed if origin else {}
        _send(handler, response)

    def _serve_space(self, handler, name):
        repo, path = self.repos[_key("space", name)], unquote(urlsplit(handler.path).path).removeprefix("/")
        path = path or "index.html"
        content_type = CONTENT_TYPES.get(path[path.rfind(".") :], "application/octet-stream")
        if repo.sdk == "static" and path in repo.files:
            _send(handler, Response(200, repo.files[path], {"Content-Type": content_type}))
        else:
            _send(handler, Response(404, b"Not Found"))

    def _act(self, request, answer):
        for entry in self._actions:
            pattern, action, times = entry
            if times != 0 and pattern.match(f"{request.method} {request.path}"):
                entry[2] = None if times is None else times - 1
                return action(answer)
        return answer()

    def _answer(self, request, headers) -> Response:
        try:
            user = self.users.get(request.token) if request.token else None
            if request.token and user is None:
                raise RefusedError(401, "Invalid credentials in Authorization header")
            for pattern, method in ROUTES:
                if found := re.fullmatch(pattern, f"{request.method} {urlsplit(request.path).path}"):
                    named = {name: unquote(part) for name, part in found.groupdict().items() if part}
                    return method(self, user=user, request=request, headers=headers, **named)
            raise RefusedError(404, f"this server does not know {request.method} {request.path}")
        except RefusedError as refused:
            return refused.response

    def _readable(self, user, kind, name) -> Repo:
        """Return a repository that the user may see; a private one does not exist for others."""
        repo = self.repos.get(_key(kind, name))
        if repo is None or (repo.private and not (user and user.owns(repo.namespace))):
            if user is None:
                raise RefusedError(401, "Invalid username or password.", "RepoNotFound")
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, user, kind, name) -> Repo:
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        repo = self._readable(user, kind, name)
        if not (user.write and user.owns(repo.namespace)):
            raise RefusedError(403, f"You do not have the right to write to {name}")
        return repo

    def _harnesses(self, **_):
        return _json({"standardEnvVars": [], "harnesses": {}})

    def _whoami(self, user, **_):
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        access = {"displayName": "test", "role": "write" if user.write else "read"}
        plans = {name: {"plan": plan} for name, plan in user.group_plans.items()}
        groups = [
            {"type": "org", "name": name, "canPay": False, "isEnterprise": False} | plans.get(name, {})
            for name in user.groups
        ]
        who = {"type": "user", "name": user.name, "isPro": user.plan == "pro", "orgs": groups}
        who |= {"emailVerified": user.confirmed, "canPay": False}
        return _json(who | {"auth": {"type": "access_token", "accessToken": access}})

    def _create(self, user, request, **_):
        wanted = json.loads(request.body)
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        namespace, kind = wanted.get("organization") or user.name, wanted.get("type") or "model"
        if not (user.write and user.owns(namespace)):
            raise RefusedError(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}".')
        name = f"{namespace}/{wanted['name']}"
        url = f"{self.url}/{_key(kind, name)}"
        if _key(kind, name) in self.repos:
            return _json({"error": f"You already created this {kind} repo", "url": url}, status=409)
        hardware = None
        if kind == "space" and wanted.get("sdk") != "static":
            hardware = wanted.get("hardware", "cpu-basic")
            self._check_hardware(user, namespace, hardware)
        private = wanted.get("visibility") == "private"
        variables = {variable["key"]: variable["value"] for variable in wanted.get("variables", [])}
        self.add_repo(name, kind=kind, private=private, sdk=wanted.get("sdk"), variables=variables, hardware=hardware)
        return _json({"url": url, "name": name})

    def _check_hardware(self, user, namespace, hardware):
        """Refuse the hardware that the plan of a user or an organization does not include."""
        plan = user.plan if namespace == user.name else user.group_plans.get(namespace)
        if hardware == "cpu-basic":
            if plan not in ("pro", "team"):
                raise RefusedError(402, NEEDS_PLAN)
        elif hardware != "zero-a10g":
            raise RefusedError(402, NEEDS_PAYMENT)
        elif plan == "free" and not user.confirmed:
            raise RefusedError(403, "Confirm your email address to host ZeroGPU Spaces.")
        elif plan == "free" and user.days < 30:
            raise RefusedError(403, "Your account is too recent to host ZeroGPU Spaces.")
        else:
            theirs = [repo for repo in self.repos.values() if repo.namespace == namespace]
            if sum(repo.hardware == hardware for repo in theirs) >= MOST_ZERO_GPU[plan]:
                raise RefusedError(403, f"{namespace} has reached its limit of {MOST_ZERO_GPU[plan]} ZeroGPU Spaces.")

    def _validate_card(self, request, **_):
        content = json.loads(request.body)["content"]
        front = re.match(r"---\n(.*?)\n---(\n|$)", content, re.DOTALL)
        try:
            values = yaml.safe_load(front[1]) if front else {}
        except yaml.YAMLError as error:
            return _json({"errors": [{"message": f"YAML metadata is not valid: {error}"}], "warnings": []}, 400)
        if values and values.get("license", "unknown") not in LICENSES:
            return _json({"errors": [{"message": '"license" must be a known license'}], "warnings": []}, 400)
        warnings = [] if values else [{"message": "empty or missing yaml metadata in repo card"}]
        return _json({"errors": [], "warnings": warnings})

    def _info(self, user, request, kind, name, revision="main", **_):
        repo = self._readable(user, kind, name)
        commit = _commit(repo, revision)
        blobs = "blobs" in parse_qs(urlsplit(request.path).query)
        siblings = [
            {"rfilename": path} | (_blob(path, content) if blobs else {}) for path, content in commit.files.items()
        ]
        card = _card(commit.files)
        about = {"id": name, "sha": commit.id, "private": repo.private, "gated": "auto" if repo.gated else False}
        about |= {"tags": _tags(card), "library_name": card.get("library_name"), "cardData": card}
        return _json(about | {"downloads": 0, "likes": 0, "sdk": repo.sdk, "siblings": siblings})

    def _search(self, request, **_):
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        found = [
            {"id": repo.name, "tags": tags, "downloads": repo.downloads, "likes": 0, "private": False}
            for repo in self.repos.values()
            if repo.kind == "model" and not repo.private
            for tags in [_tags(_card(repo.files))]
            if query.get("filter", "") in ["", *tags] and query.get("search", "").lower() in repo.name.lower()
        ]
        found.sort(key=lambda each: -each["downloads"])
        return _json(found[: int(query.get("limit", 1000))])

    def _tree(self, user, kind, name, revision, **_):
        files = _commit(self._readable(user, kind, name), revision).files
        entries = []
        for path, content in files.items():
            blob = _blob(path, content)
            entry = {"type": "file", "path": path, "size": blob["size"], "oid": blob["blobId"]}
            lfs = blob.get("lfs")
            entries.append(entry | ({"lfs": lfs | {"oid": lfs["sha256"]}} if lfs else {}))
        return _json(entries)

    def _commits(self, user, kind, name, revision, **_):
        repo = self._readable(user, kind, name)
        last = _commit(repo, revision)
        listed = [
            {"id": commit.id, "title": commit.message, "message": "", "authors": [{"user": commit.author}]}
            for commit in reversed(repo.commits[: repo.commits.index(last) + 1])
        ]
        return _json(listed)

    def _refs(self, user, kind, name, **_):
        refs = self._readable(user, kind, name).refs
        branches = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit} for ref, commit in refs.items()]
        return _json({"branches": branches, "tags": [], "converts": []})

    def _variables(self, user, request, name, **_):
        repo = self._writable(user, "space", name)
        if request.method == "POST":
            wanted = json.loads(request.body)
            repo.variables[wanted["key"]] = wanted["value"]
        return _json({key: {"value": value} for key, value in repo.variables.items()})

    def _runtime(self, user, name, **_):
        repo = self._readable(user, "space", name)
        hardware = {"current": None, "requested": repo.hardware}  # as while it is built for the first time
        return _json({"stage": "BUILDING", "hardware": hardware, "gcTimeout": None})

    def _hardware(self, user, request, name, **_):
        repo, wanted = self._writable(user, "space", name), json.loads(request.body)["flavor"]
        self._check_hardware(user, repo.namespace, wanted)
        repo.hardware = wanted
        return self._runtime(user, name)

    def _resolve(self, user, headers, name, revision, path, kind="model", **_):
        repo = self._readable(user, kind, name)
        commit = _commit(repo, revision)
        if repo.gated and not (user and (user.owns(repo.namespace) or user.name in repo.readers)):
            raise RefusedError(403 if user else 401, f"Access to model {name} is restricted.", "GatedRepo")
        if path not in commit.files:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        content, blob = commit.files[path], _blob(path, commit.files[path])
        sent = {"Content-Type": "text/plain; charset=utf-8"}  # also for a script, which no page may run from there
        sent |= {"X-Repo-Commit": commit.id, "ETag": f'"{blob["blobId"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in blob:
            sent |= {"X-Linked-Etag": f'"{blob["lfs"]["sha256"]}"', "X-Linked-Size": str(len(content))}
        if self.cdn_url and "lfs" in blob:
            self._uploads[blob["lfs"]["sha256"]] = content
            location = f"{self.cdn_url}/cdn/{blob['lfs']['sha256']}?filename={quote(path)}"
            return Response(302, b"", sent | {"Location": location})
        return _part(content, headers.get("Range", ""), sent)

    def _cdn(self, headers, oid, **_):
        return _part(self._uploads[oid], headers.get("Range", ""), {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _preupload(self, user, request, kind, name, revision, **_):
        files = self._writable(user, kind, name).at(revision).files
        answers = []
        for entry in json.loads(request.body)["files"]:
            path = entry["path"]
            large = path.endswith(LFS_SUFFIXES) or entry["size"] > LARGEST_REGULAR
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in files:
                blob = _blob(path, files[path])
                answer["oid"] = blob["lfs"]["sha256"] if "lfs" in blob else blob["blobId"]
            answers.append(answer)
        return _json({"files": answers})

    def _lfs_batch(self, user, request, name, kind="model", **_):
        self._writable(user, kind, name)
        objects = json.loads(request.body)["objects"]
        for wanted in objects:
            if wanted["oid"] not in self._uploads:
                put = {"href": f"{self.url}/lfs/{wanted['oid']}", "header": {}}
                verify = {"href": f"{self.url}/{_key(kind, name)}.git/info/lfs/objects/verify", "header": {}}
                wanted["actions"] = {"upload": put, "verify": verify}
        return _json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request, oid, **_):  # without a token: the address is the permission
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise RefusedError(400, "the content is not what its SHA-256 says")
        self._uploads[oid] = request.body
        return Response()

    def _lfs_verify(self, user, request, name, kind="model", **_):
        self._writable(user, kind, name)
        claimed = json.loads(request.body)
        if len(self._uploads.get(claimed["oid"], b"")) != claimed["size"]:
            raise RefusedError(404, "the object was not uploaded")
        return _json({})

    def _commit(self, user, request, kind, name, revision, **_):
        repo = self._writable(user, kind, name)
        changes, message = {}, ""
        for line in request.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", repo.refs[revision]) != repo.refs[revision]:
                    raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                changes[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif key == "lfsFile" and value["oid"] in self._uploads:
                changes[value["path"]] = self._uploads[value["oid"]]
            elif key == "deletedFile" and value["path"] in _commit(repo, revision).files:
                changes[value["path"]] = None
            else:
                raise RefusedError(400, f"cannot do {key} {value.get('path')}")
        commit = repo.commit(changes, message, revision, user.name)
        if repo.kind == "space":
            repo.sdk = _card(repo.files).get("sdk", repo.sdk)
        url = f"{self.url}/{_key(kind, name)}/commit/{commit}"
        return _json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


API = r"/api/(?P<kind>model|space|dataset)s/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?P<kind>spaces/|datasets/)?(?P<name>[^/]+/[^/]+)"
ROUTES = [
    (f"GET {HARNESSES}", HubServer._harnesses),
    (r"GET /api/whoami-v2", HubServer._whoami),
    (r"POST /api/repos/create", HubServer._create),
    (r"POST /api/validate-yaml", HubServer._validate_card),
    (r"(GET|POST) /api/spaces/(?P<name>[^/]+/[^/]+)/variables", HubServer._variables),
    (r"GET /api/spaces/(?P<name>[^/]+/[^/]+)/runtime", HubServer._runtime),
    (r"POST /api/spaces/(?P<name>[^/]+/[^/]+)/hardware", HubServer._hardware),
    (r"GET /api/models", HubServer._search),
    (rf"GET {API}", HubServer._info),
    (rf"GET {API}/revision/(?P<revision>[^/]+)", HubServer._info),
    (rf"GET {API}/tree/(?P<revision>[^/]+)", HubServer._tree),
    (rf"GET {API}/commits/(?P<revision>[^/]+)", HubServer._commits),
    (rf"GET {API}/refs", HubServer._refs),
    (rf"POST {API}/preupload/(?P<revision>[^/]+)", HubServer._preupload),
    (rf"POST {API}/commit/(?P<revision>[^/]+)", HubServer._commit),
    (rf"POST {PAGE}\.git/info/lfs/objects/batch", HubServer._lfs_batch),
    (rf"POST {PAGE}\.git/info/lfs/objects/verify", HubServer._lfs_verify),
    (r"PUT /lfs/(?P<oid>[0-9a-f]{64})", HubServer._lfs_upload),
    (r"(GET|HEAD) /cdn/(?P<oid>[0-9a-f]{64})", HubServer._cdn),
    (rf"(GET|HEAD) {PAGE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer._resolve),
]


def _send(handler, response):
    handler.send_response(response.status)
    for name, value in ({"Content-Length": str(len(response.body))} | response.headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        with suppress(ConnectionError):  # a client that has ended, as a killed training, reads no answer
            handler.wfile.write(response.body[: response.cut])


def _part(content, wanted, headers) -> Response:
    """The answer to a request with a header Range, or without one if `wanted` is empty."""
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted):
        start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        return Response(
            206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        )
    return Response(200, content, headers)


def _key(kind, name):
    folder = {"space": "spaces/", "dataset": "datasets/", "model": ""}
    return folder.get(kind, kind) + name  # `kind` is the folder itself in the address of a page


def _commit(repo, revision) -> Commit:
    if found := repo.at(revision):
        return found
    raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def _blob(path, content):
    """The metadata of a file on the Hub: its size, its git id and, if LFS stores it, its SHA-256."""
    lfs = path.endswith(LFS_SUFFIXES) or len(content) > LARGEST_REGULAR
    pointer = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"size": len(content), "blobId": blob_id} | ({"lfs": pointer} if lfs else {})


def _inverted(response):
    return replace(response, body=bytes(255 - byte for byte in response.body))


def _card(files) -> dict:
    """The metadata at the head of README.md."""
    front = re.match(r"---\n(.*?)\n---(\n|$)", files.get("README.md", b"").decode(errors="replace"), re.DOTALL)
    return (yaml.safe_load(front[1]) or {}) if front else {}


def _tags(card) -> list[str]:
    """The tags of a repository on the Hub: those of its card, and its library."""
    tags = card.get("tags")
    return [*(tags if isinstance(tags, list) else []), *filter(None, [card.get("library_name")])]


def _json(value, status=200):
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json"})
