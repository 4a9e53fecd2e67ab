import os

import beside


def main(args):
    with open("data.txt") as file:
        return {
            "beside": beside.word(),
            "data": file.read(),
            "is_here": os.path.exists(os.path.join(os.getcwd(), "data.txt")),
        }
