func word() -> String {
    "imported"
}
