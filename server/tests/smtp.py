"""A mail server: smtp.py PORT DIR. Each mail becomes a file DIR/N.eml, its recipient in the first line.

A recipient that starts with "refused" is refused for good, one that starts with "busy" once for now. While DIR/hold
exists, a mail is kept but not answered.
"""

import asyncio
import pathlib
import sys

from aiosmtpd.controller import UnthreadedController


class Keep:
    def __init__(self, folder):
        self.folder = folder
        self.mails = len(list(folder.glob("*.eml")))
        self.busy = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 nobody of this name"
        if address.startswith("busy") and address not in self.busy:
            self.busy.add(address)
            return "451 4.3.0 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.mails += 1
        new = self.folder / f"{self.mails}.new"
        new.write_bytes(b"To-Be: " + envelope.rcpt_tos[0].encode() + b"\r\n" + envelope.original_content)
        new.rename(self.folder / f"{self.mails}.eml")
        while (self.folder / "hold").exists():
            await asyncio.sleep(0.05)
        return "250 OK"


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
keep = Keep(pathlib.Path(sys.argv[2]))
UnthreadedController(keep, hostname="127.0.0.1", port=int(sys.argv[1]), loop=loop).begin()
loop.run_forever()
