"""Sends a mail by SMTP.

Source: RFC 5321; the message by RFC 5322 and MIME.
"""

import base64
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from connecting import Refused, opened, required

PORTS = {"starttls": 587, "tls": 465, "none": 25}
TIMEOUT_S = 30


class Plain(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        return opened(host, port, timeout)


class Encrypted(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        return self.context.wrap_socket(opened(host, port, timeout), server_hostname=self._host)


def main(args):
    try:
        host, to = required(args, "host", "to")
        way = args.get("tls") or "starttls"
        if way not in PORTS:
            raise Refused("tls must be starttls, tls or none")
        message = written(args, to)
        make = Encrypted if way == "tls" else Plain
        with make(host, int(args.get("port") or PORTS[way]), timeout=TIMEOUT_S) as server:
            if way == "starttls":
                server.starttls(context=ssl.create_default_context())
            if args.get("username"):
                server.login(args["username"], args.get("password") or "")
            refused = server.send_message(
                message, to_addrs=[*listed(to), *listed(args.get("cc")), *listed(args.get("bcc"))]
            )
    except Refused as refused:
        return {"error": str(refused)}
    except smtplib.SMTPAuthenticationError:
        return {"error": f"{args['host']} refused the user name and password"}
    except smtplib.SMTPRecipientsRefused as error:
        return {"error": f"{args['host']} refused every recipient: {', '.join(error.recipients)}"}
    except smtplib.SMTPException as error:
        return {"error": f"{args['host']} refused the message: {error}"}
    except (OSError, ValueError) as error:
        return {"error": f"cannot send by {args['host']}: {error}"}
    return {"id": message["Message-ID"], "refused": sorted(refused)}


def listed(value):
    if not value:
        return []
    return list(value) if isinstance(value, list) else [one.strip() for one in str(value).split(",") if one.strip()]


def written(args, to):
    sender = args.get("from") or args.get("username")
    if not sender:
        raise Refused("You must specify a from parameter.")
    message = EmailMessage()
    message["From"] = str(sender)
    message["To"] = ", ".join(listed(to))
    if args.get("cc"):
        message["Cc"] = ", ".join(listed(args["cc"]))
    message["Subject"] = str(args.get("subject") or "")
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=str(sender).rpartition("@")[2].strip(">") or None)
    message.set_content(str(args.get("text") or ""))
    if args.get("html"):
        message.add_alternative(str(args["html"]), subtype="html")
    for one in args.get("attachments") or []:
        main, _, sub = str(one.get("type") or "application/octet-stream").partition("/")
        content = base64.b64decode(one.get("base64") or b"")
        message.add_attachment(content, maintype=main, subtype=sub or "octet-stream", filename=one.get("name"))
    return message
