pub fn word() -> &'static str {
    "imported"
}
