import platform


def main(args):
    name = args.get("name", "stranger")
    print(f"greeting {name}")
    return {"greeting": f"Hello {name}, from Python {platform.python_version()}"}
