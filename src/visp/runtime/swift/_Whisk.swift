// The platform's API for actions: what `Whisk.` means in them, as in OpenWhisk's images.
import Dispatch
import Foundation
import FoundationNetworking
import VispAction

class Whisk {
    static var baseUrl: String? { ProcessInfo.processInfo.environment["__OW_API_HOST"] }
    static var apiKey: String? { ProcessInfo.processInfo.environment["__OW_API_KEY"] }
    static var jsonDecoder: JSONDecoder {
        get { VispAction.settings.decoder }
        set { VispAction.settings.decoder = newValue }
    }
    static var jsonEncoder: JSONEncoder {
        get { VispAction.settings.encoder }
        set { VispAction.settings.encoder = newValue }
    }

    class func invoke(actionNamed action: String, withParameters params: [String: Any], blocking: Bool = true) -> [String: Any] {
        send("POST", "actions", action, blocking ? "?blocking=true" : "?blocking=false", params)
    }

    class func invoke<Input: Encodable>(actionNamed action: String, withParameters params: Input, blocking: Bool = true) -> [String: Any] {
        invoke(actionNamed: action, withParameters: dictionary(of: params), blocking: blocking)
    }

    class func trigger(eventNamed event: String, withParameters params: [String: Any]) -> [String: Any] {
        send("POST", "triggers", event, "", params)
    }

    class func trigger<Input: Encodable>(eventNamed event: String, withParameters params: Input) -> [String: Any] {
        trigger(eventNamed: event, withParameters: dictionary(of: params))
    }

    class func createTrigger(triggerNamed trigger: String, withParameters params: [String: Any]) -> [String: Any] {
        let parameters = params.map { ["key": $0.key, "value": $0.value] as [String: Any] }
        return send("PUT", "triggers", trigger, "", ["parameters": parameters])
    }

    class func createRule(ruleNamed rule: String, withTrigger trigger: String, andAction action: String) -> [String: Any] {
        send("PUT", "rules", rule, "", ["trigger": qualified(trigger), "action": qualified(action)])
    }

    private class func dictionary<Input: Encodable>(of params: Input) -> [String: Any] {
        guard let data = try? jsonEncoder.encode(params) else { return [:] }
        return (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] ?? [:]
    }

    /// `/namespace/…` of a name that may lack it.
    private class func qualified(_ name: String) -> String {
        name.hasPrefix("/") ? name : "/_/" + name
    }

    private class func send(_ method: String, _ collection: String, _ name: String, _ query: String, _ body: [String: Any]) -> [String: Any] {
        let parts = qualified(name).split(separator: "/", omittingEmptySubsequences: true)
        guard parts.count >= 2, let host = baseUrl, let key = apiKey else {
            return ["error": "Whisk: \(name) cannot be reached: __OW_API_HOST, __OW_API_KEY or the name is missing"]
        }
        let rest = parts.dropFirst().joined(separator: "/")
        let path = "/api/v1/namespaces/\(parts[0])/\(collection)/\(rest)"
        let base = host.contains("://") ? host : "https://" + host
        guard let escaped = path.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed),
            let url = URL(string: base + escaped + query),
            let data = try? JSONSerialization.data(withJSONObject: body)
        else { return ["error": "Whisk: \(name) cannot be called with \(body)"] }
        var request = URLRequest(url: url)
        request.httpMethod = method
        request.httpBody = data
        request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        request.setValue("Basic " + Data(key.utf8).base64EncodedString(), forHTTPHeaderField: "Authorization")
        let answer = Answer(), given = DispatchSemaphore(value: 0)
        URLSession.shared.dataTask(with: request) { data, _, error in
            if let data, let object = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] {
                answer.value = object
            } else {
                answer.value = ["error": error.map { String(describing: $0) } ?? "Whisk: the answer is no JSON object"]
            }
            given.signal()
        }.resume()
        given.wait()
        return answer.value
    }

    private final class Answer: @unchecked Sendable {
        var value: [String: Any] = [:]
    }
}
