// What runs an action: lines on standard input, a reply line each on descriptor 3.
import Dispatch
import Foundation
import Glibc

public final class Settings: @unchecked Sendable {
    public var decoder = JSONDecoder()
    public var encoder = JSONEncoder()

    init() {
        encoder.outputFormatting = .withoutEscapingSlashes
    }
}

/// How values of `Codable` actions are read and written; an action may change it.
public let settings = Settings()

struct Refusal: Error, CustomStringConvertible {
    let description: String
}

struct Name: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

func remember(_ name: String, _ text: String) {
    setenv("__OW_" + name.uppercased(), text, 1)
}

/// A run's line for a `Codable` action.
struct Message<Value: Decodable>: Decodable {
    let value: Value

    init(from decoder: Decoder) throws {
        let fields = try decoder.container(keyedBy: Name.self)
        for key in fields.allKeys where key.stringValue != "value" {
            if let text = try? fields.decode(String.self, forKey: key) { remember(key.stringValue, text) }
        }
        let key = Name(stringValue: "value")
        value = try fields.contains(key)
            ? fields.decode(Value.self, forKey: key) : settings.decoder.decode(Value.self, from: Data("{}".utf8))
    }
}

/// For an action without input.
struct Nothing: Decodable {}

func decode<Value: Decodable>(_ line: Data) throws -> Value {
    try settings.decoder.decode(Message<Value>.self, from: line).value
}

func encode<Value: Encodable>(_ result: Value) throws -> Data {
    try settings.encoder.encode(result)
}

/// The value of a run's line for an action that takes what JSON has.
func parse(_ line: Data) throws -> Any {
    guard let message = try JSONSerialization.jsonObject(with: line) as? [String: Any] else {
        throw Refusal(description: "the line is no JSON object")
    }
    for (name, value) in message where name != "value" {
        if let text = value as? String { remember(name, text) }
    }
    return message["value"] ?? [String: Any]()
}

func parse<Value>(_ line: Data, as type: Value.Type) throws -> Value {
    guard let value = try parse(line) as? Value else {
        throw Refusal(description: "the action takes \(type), and was given something else")
    }
    return value
}

func render(_ result: Any) throws -> Data {
    guard JSONSerialization.isValidJSONObject(result) else {
        throw Refusal(description: "the action returned \(result), which is no JSON object or array")
    }
    return try JSONSerialization.data(withJSONObject: result, options: .withoutEscapingSlashes)
}

func text(of error: Error) -> String {
    switch error {
    case DecodingError.typeMismatch(_, let context), DecodingError.valueNotFound(_, let context),
        DecodingError.keyNotFound(_, let context), DecodingError.dataCorrupted(let context):
        let path = context.codingPath.map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    case let error as LocalizedError:
        return error.errorDescription ?? String(describing: error)
    default:
        return String(describing: error)
    }
}

/// Both channels, where programs that the action starts do not inherit them.
struct Channels: @unchecked Sendable {
    let lines: UnsafeMutablePointer<FILE>
    let replies: Int32

    init() {
        replies = fcntl(3, F_DUPFD_CLOEXEC, 100)
        lines = fdopen(fcntl(0, F_DUPFD_CLOEXEC, 100), "r")
        setvbuf(stdout, nil, _IOLBF, 0)  // lines of both streams reach the logs in their order
        close(3)
        let nothing = open("/dev/null", O_RDONLY)
        dup2(nothing, 0)
        close(nothing)
        if getenv("__OW_WAIT_FOR_ACK") != nil { reply(Data("{\"ok\":true}".utf8)) }
    }

    func reply(_ data: Data) {
        fflush(nil)
        var line = data
        line.append(UInt8(ascii: "\n"))
        line.withUnsafeBytes { bytes in
            var left = bytes[...]
            while !left.isEmpty {
                let count = write(replies, UnsafeRawBufferPointer(rebasing: left).baseAddress, left.count)
                if count < 0 && errno != EINTR { exit(1) }
                left = left.dropFirst(max(count, 0))
            }
        }
    }

    func fail(_ error: Error) {
        reply((try? JSONSerialization.data(withJSONObject: ["error": text(of: error)])) ?? Data("{\"error\":\"\"}".utf8))
    }

    func take(_ result: () throws -> Data) {
        do {
            let data = try result()
            guard let first = data.first, first == UInt8(ascii: "{") || first == UInt8(ascii: "[") else {
                throw Refusal(description: "the action returned \(String(decoding: data, as: UTF8.self)), which is no JSON object or array")
            }
            reply(data)
        } catch {
            fail(error)
        }
    }

    func nextLine() -> Data? {
        var buffer: UnsafeMutablePointer<CChar>?
        var room = 0
        let count = getline(&buffer, &room, lines)
        guard count > 0, let buffer else {
            free(buffer)
            return nil
        }
        return Data(bytesNoCopy: buffer, count: count, deallocator: .free)
    }
}

/// Actions that answer before they return: all of it on the main thread.
func serve(_ action: (Data) throws -> Data) -> Never {
    let channels = Channels()
    while let line = channels.nextLine() {
        channels.take { try action(line) }
    }
    exit(0)
}

/// Actions that answer later: the main thread is left to the main queue, where parts of them may run.
func serve(later action: @escaping @Sendable (Data, @escaping @Sendable (Result<Data, Error>) -> Void) -> Void) -> Never {
    let channels = Channels()
    let thread = Thread {
        while let line = channels.nextLine() {
            let answer = Answer()
            action(line) { answer.give($0) }
            channels.take { try answer.wait().get() }
        }
        exit(0)
    }
    thread.stackSize = 8 << 20
    thread.start()
    dispatchMain()
}

/// The first answer counts.
final class Answer: @unchecked Sendable {
    private let lock = NSLock()
    private let given = DispatchSemaphore(value: 0)
    private var result: Result<Data, Error>?

    func give(_ result: Result<Data, Error>) {
        lock.lock()
        let isFirst = self.result == nil
        if isFirst { self.result = result }
        lock.unlock()
        if isFirst { given.signal() }
    }

    func wait() -> Result<Data, Error> {
        given.wait()
        return result!
    }
}

struct Unchecked<Value>: @unchecked Sendable {
    let value: Value
}

func serve(asynchronous action: @escaping (Data) async throws -> Data) -> Never {
    let action = Unchecked(value: action)
    serve { line, then in
        Task.detached {
            do { then(.success(try await action.value(line))) } catch { then(.failure(error)) }
        }
    }
}

func completed<Out: Encodable>(_ result: Out?, _ error: Error?) -> Result<Data, Error> {
    if let error { return .failure(error) }
    guard let result else {
        return .failure(Refusal(description: "Action handler callback did not return response or error."))
    }
    return Result { try encode(result) }
}

// The forms of an action. What does not wait comes first: it can be taken for what does.

public func run(_ action: (Any) throws -> Any) -> Never {
    serve { try render(action(parse($0))) }
}

public func run(_ action: ([String: Any]) throws -> Any) -> Never {
    serve { try render(action(parse($0, as: [String: Any].self))) }
}

public func run(_ action: ([Any]) throws -> Any) -> Never {
    serve { try render(action(parse($0, as: [Any].self))) }
}

public func run(_ action: () throws -> Any) -> Never {
    serve { _ = try parse($0); return try render(action()) }
}

public func run<In: Decodable, Out: Encodable>(_ action: (In) throws -> Out) -> Never {
    serve { try encode(action(decode($0))) }
}

public func run<Out: Encodable>(_ action: () throws -> Out) -> Never {
    serve { let _: Nothing = try decode($0); return try encode(action()) }
}

public func run<In: Decodable, Out: Encodable>(_ action: @escaping (In, @escaping (Out?, Error?) -> Void) throws -> Void) -> Never {
    let action = Unchecked(value: action)
    serve { line, then in
        do { try action.value(decode(line)) { then(completed($0, $1)) } } catch { then(.failure(error)) }
    }
}

public func run<Out: Encodable>(_ action: @escaping (@escaping (Out?, Error?) -> Void) throws -> Void) -> Never {
    let action = Unchecked(value: action)
    serve { line, then in
        do {
            let _: Nothing = try decode(line)
            try action.value { then(completed($0, $1)) }
        } catch { then(.failure(error)) }
    }
}

@_disfavoredOverload
public func run(_ action: @escaping (Any) async throws -> Any) -> Never {
    serve(asynchronous: { try await render(action(parse($0))) })
}

@_disfavoredOverload
public func run(_ action: @escaping ([String: Any]) async throws -> Any) -> Never {
    serve(asynchronous: { try await render(action(parse($0, as: [String: Any].self))) })
}

@_disfavoredOverload
public func run<In: Decodable, Out: Encodable>(_ action: @escaping (In) async throws -> Out) -> Never {
    serve(asynchronous: { try await encode(action(decode($0))) })
}

@_disfavoredOverload
public func run<Out: Encodable>(_ action: @escaping () async throws -> Out) -> Never {
    serve(asynchronous: { let _: Nothing = try decode($0); return try await encode(action()) })
}
