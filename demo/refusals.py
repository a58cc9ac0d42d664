"""What the server refuses before the application is asked, in the JSON that the page reads."""

import json

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from demo.app import HEADERS, TOO_LARGE


class JsonErrorTask(ErrorTask):
    """Waitress' answer to a request that it refuses; its own is plain text."""

    def execute(self) -> None:
        """Answer with the reason in JSON, under the headers of every answer."""
        error = self.request.error
        reason = TOO_LARGE if error.code == 413 else f"{error.reason}: {error.body}"
        body = json.dumps({"error": reason}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", "application/json"), *HEADERS.items()])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class JsonChannel(HTTPChannel):
    """A connection whose refusals are JSON."""

    error_task_class = JsonErrorTask
