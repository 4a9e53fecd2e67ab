import com.google.gson.JsonObject;
import org.apache.commons.lang3.StringUtils;

public class Library {
    public static JsonObject main(JsonObject args) {
        JsonObject out = new JsonObject();
        out.addProperty("made", StringUtils.reverse(args.get("text").getAsString()));
        return out;
    }
}
