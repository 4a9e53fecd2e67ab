import beside.Word;
import com.google.gson.JsonObject;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;

public class Main {
    public static JsonObject main(JsonObject args) throws Exception {
        JsonObject out = new JsonObject();
        try (InputStream data = Main.class.getResourceAsStream("/data.txt")) {
            out.addProperty("data", new String(data.readAllBytes(), StandardCharsets.UTF_8));
        }
        out.addProperty("beside", Word.say());
        return out;
    }
}
