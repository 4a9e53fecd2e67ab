// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.util.ArrayList;
import java.util.List;

public class Everything {
    private static int count = 0;

    public static JsonArray main(JsonArray given) {
        JsonArray out = new JsonArray();
        for (int at = given.size() - 1; at >= 0; at--) {
            out.add(given.get(at));
        }
        return out;
    }

    public static JsonObject main(JsonObject args) throws Exception {
        count++;
        String text = args.has("text") ? args.get("text").getAsString() : "";
        JsonObject out = new JsonObject();
        switch (args.get("do").getAsString()) {
            case "hello":
                out.addProperty("greeting", "Hello, " + args.get("name").getAsString() + "!");
                return out;
            case "same":
                out.add("value", args.get("value"));
                return out;
            case "unicode":
                System.out.println(text);
                out.addProperty("winter", text + " ☃ " + text);
                return out;
            case "env":
                out.add("env", environment(args.getAsJsonArray("names")));
                JsonArray keys = new JsonArray();
                args.keySet().stream().sorted().forEach(keys::add);
                out.add("keys", keys);
                return out;
            case "error":
                JsonObject error = new JsonObject();
                error.addProperty("code", 7);
                out.add("error", error);
                out.addProperty("more", 1);
                return out;
            case "throw":
                throw new Exception("boom");
            case "logs":
                for (int number = 1; number <= 2; number++) {
                    System.out.println("out " + number);
                    System.err.println("err " + number);
                }
                return out;
            case "long":
                out.addProperty("text", "x".repeat(args.get("bytes").getAsInt()));
                return out;
            case "length":
                out.addProperty("length", text.length());
                return out;
            case "chance":
                JsonArray chance = new JsonArray();
                chance.add(Math.random() + " " + java.util.concurrent.ThreadLocalRandom.current().nextLong());
                chance.add(java.util.UUID.randomUUID().toString());
                out.add("chance", chance);
                return out;
            case "count":
                out.addProperty("count", count);
                return out;
            case "die":
                new ProcessBuilder("/bin/kill", "-9", String.valueOf(ProcessHandle.current().pid())).start().waitFor();
                return out;
            case "sleep":
                Thread.sleep(60000);
                return out;
            case "eat":
                List<byte[]> eaten = new ArrayList<>();
                while (true) {
                    eaten.add(new byte[8 << 20]);
                }
            default:
                return null;
        }
    }

    private static JsonObject environment(JsonArray names) {
        JsonObject out = new JsonObject();
        for (JsonElement name : names) {
            String value = System.getenv(name.getAsString());
            out.add(name.getAsString(), value == null ? JsonNull.INSTANCE : new JsonPrimitive(value));
        }
        return out;
    }

    public static JsonObject other(JsonObject args) {
        JsonObject out = new JsonObject();
        out.addProperty("by", "other");
        return out;
    }

    public static JsonObject exit(JsonObject args) {
        System.exit(3);
        return null;
    }
}
