func main(args: [String: Any]) -> [String: Any] {
    ["beside": word()]
}
