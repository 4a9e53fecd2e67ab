import markdown


def main(args):
    return {"made": markdown.markdown(args["text"])}
