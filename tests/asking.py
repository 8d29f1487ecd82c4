"""The app as its page and other programs ask it, over HTTP."""

import json
import urllib.request


class App:
    """An app that serves at `url`."""

    def __init__(self, url):
        self._url = url + "/gradio_api"
        with urllib.request.urlopen(url + "/config") as answer:
            self._events = {event["api_name"]: event["id"] for event in json.load(answer)["dependencies"]}

    def stream(self, *arguments):
        """Have a text written with the arguments of /generate; return what came last."""
        event = self._post("call/generate", {"data": arguments})["event_id"]
        *_, last = self._read(f"call/generate/{event}")
        return last and last[0]

    def ask(self, name, *arguments, session):
        """Do what the page does at an event; return the error that it shows, or None."""
        event = {"fn_index": self._events[name], "data": list(arguments), "session_hash": session}
        self._post("queue/join", event)
        messages = self._read(f"queue/data?session_hash={session}")
        (completed,) = [message for message in messages if message["msg"] == "process_completed"]
        return None if completed["success"] else completed["output"]["error"]

    def _post(self, path, body):
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._url}/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def _read(self, path):
        with urllib.request.urlopen(f"{self._url}/{path}") as answer:
            return [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]
