"""Serve the demo page on this machine: `python -m demo` (`make demo`)."""

import argparse
import logging
import sys
from collections.abc import Sequence

import waitress

from utils.common.constants import DISCLAIMER
from utils.models.registry import PHANTOMS_ONLY, ModelError, choose_model

HOST, PORT = "127.0.0.1", 8000
LAST_PORT = 65_535
THREADS, CONNECTIONS = 8, 200

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="full")
    parser.add_argument("--model", help="as in `make predict`; by default the released model")
    parser.add_argument("--scale", help="as in `make predict`")
    parser.add_argument("--positive", help="as in `make predict`")
    parser.add_argument("--port", default=str(PORT))
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    # Waiting for their turn is what clients are to do here; it would be said of every one.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if not options.port.isdecimal() or int(options.port) > LAST_PORT:
        logger.error("demo: PORT=%s is no port; name one from 0 to %s", options.port, LAST_PORT)
        return 2
    port = int(options.port)
    try:
        scorer = choose_model(options.study, options.model, options.scale, options.positive)
        logger.info("Model %s: %s", scorer.name, scorer.description)
        logger.info("%s", DISCLAIMER)
        if scorer.phantoms_only:
            logger.warning(PHANTOMS_ONLY)
        # Not before the terminal has said which model is taken: these take seconds.
        from demo.answers import load_answerer
        from demo.app import MAX_BYTES, create_app
        from demo.refusals import JsonChannel

        in_memory = 2 * MAX_BYTES
        answerer = load_answerer(scorer)
        server = waitress.create_server(
            create_app(answerer), host=HOST, port=port, threads=THREADS,
            connection_limit=CONNECTIONS, max_request_body_size=in_memory,
            # Waitress would put larger requests and responses on disk.
            inbuf_overflow=in_memory, outbuf_overflow=in_memory,
        )  # fmt: skip
        server.channel_class = JsonChannel
    except ModelError as error:
        logger.error("demo: %s", error)
        return 2
    except OSError as error:
        logger.error("demo: port %s cannot be used (%s); name another: PORT=", port, error)
        return 2
    logger.info("Open http://%s:%s in a browser; stop with Ctrl-C.", HOST, server.effective_port)
    try:
        server.run()
    except KeyboardInterrupt:
        logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
