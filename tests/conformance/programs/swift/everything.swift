// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.
import Foundation

struct Boom: LocalizedError {
    var errorDescription: String? { "boom" }
}

final class Counter: @unchecked Sendable {
    var value = 0
}

let counter = Counter()

func main(args: Any) throws -> Any {
    counter.value += 1
    if let list = args as? [Any] { return Array(list.reversed()) }
    let args = args as? [String: Any] ?? [:]
    let text = args["text"] as? String ?? ""
    switch args["do"] as? String {
    case "hello":
        return ["greeting": "Hello, \(args["name"] as? String ?? "")!"]
    case "same":
        return ["value": args["value"] ?? NSNull()]
    case "unicode":
        print(text)
        return ["winter": "\(text) ☃ \(text)"]
    case "env":
        let env = ProcessInfo.processInfo.environment
        let names = args["names"] as? [String] ?? []
        let found = Dictionary(uniqueKeysWithValues: names.map { ($0, env[$0] as Any? ?? NSNull()) })
        return ["env": found, "keys": args.keys.sorted()]
    case "error":
        return ["error": ["code": 7], "more": 1] as [String: Any]
    case "throw":
        throw Boom()
    case "logs":
        for number in 1...2 {
            print("out \(number)")
            FileHandle.standardError.write(Data("err \(number)\n".utf8))
        }
        return [String: Any]()
    case "long":
        return ["text": String(repeating: "x", count: args["bytes"] as? Int ?? 0)]
    case "length":
        return ["length": text.utf8.count]
    case "count":
        return ["count": counter.value]
    case "die":
        kill(getpid(), SIGKILL)
    case "sleep":
        sleep(60)
    case "eat":
        var eaten: [[UInt8]] = []
        while true { eaten.append([UInt8](repeating: 1, count: 8 << 20)) }
    case "number":
        return 5
    default:
        break
    }
    return NSNull()
}

func other(args: Any) -> Any {
    ["by": "other"]
}
