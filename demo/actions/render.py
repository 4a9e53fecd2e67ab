"""Renders a page from Markdown, by a library that lies beside this file in the archive."""

import markdown


def main(args):
    html = markdown.markdown(args["markdown"], extensions=["tables", "fenced_code"])
    print(f"Markdown {markdown.__version__} from {markdown.__file__}: {len(html)} characters of HTML")
    return {"title": args["title"], "headings": args["headings"], "html": html}
