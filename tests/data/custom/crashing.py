"""A worker process that crashes, hangs or fails when a text contains certain words."""

import os
import signal
import time

from oneflow_jax.data.custom import text_clean, worker

clean_text = text_clean.clean_text


def clean_or_crash(text):
    if "deadly" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "endless" in text:
        time.sleep(999)
    if "once" in text and not os.path.exists(os.environ["ONCE"]):
        open(os.environ["ONCE"], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if "faulty" in text:
        raise RuntimeError("an internal error")
    if "full" in text:
        raise OSError(28, "No space left on device")
    return clean_text(text)


text_clean.clean_text = clean_or_crash

if __name__ == "__main__":
    worker.main()
