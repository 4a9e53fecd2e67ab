package beside;

public class Word {
    public static String say() {
        return "imported";
    }
}
