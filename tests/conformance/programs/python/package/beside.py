def word():
    return "imported"
