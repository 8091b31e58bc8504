"""A mail server: smtp.py PORT DIR [CERTIFICATE KEY USER PASSWORD]. Each mail becomes a file DIR/N.eml, its recipient in the
first line. With a certificate it takes mails only after STARTTLS and from that user, who stands in the second line.

A recipient that starts with "refused" is refused for good, one that starts with "busy" once for now. While DIR/hold
exists, a mail is kept but not answered.
"""

import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import AuthResult


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
        by = f"By: {session.auth_data} over {session.ssl['cipher'][1]}\r\n" if session.ssl else ""
        new.write_bytes(f"To-Be: {envelope.rcpt_tos[0]}\r\n{by}".encode() + envelope.original_content)
        new.rename(self.folder / f"{self.mails}.eml")
        while (self.folder / "hold").exists():
            await asyncio.sleep(0.05)
        return "250 OK"


def secure(certificate, key, user, password):
    """What only takes that user, and only over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def known(server, session, envelope, mechanism, auth):
        is_user = (auth.login, auth.password) == (user.encode(), password.encode())
        return AuthResult(success=is_user, handled=False, auth_data=user)

    return {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": known}


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
keep = Keep(pathlib.Path(sys.argv[2]))
options = secure(*sys.argv[3:]) if len(sys.argv) > 3 else {}
UnthreadedController(keep, hostname="127.0.0.1", port=int(sys.argv[1]), loop=loop, **options).begin()
loop.run_forever()
