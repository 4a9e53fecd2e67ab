package visp;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.security.Permission;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Runs a Java action inside its container: JSON lines on standard input, replies as JSON lines on descriptor 3.
 *
 * <p>The first line is init: {@code {"value": {name, main, binary, folder, env}}}; the folder has classes, as a jar
 * has, and perhaps jars in {@code lib}. Every later line is a run body. A reply is what the kind's official image
 * answers: a plain line for 200, a line that begins with {@code !} for an error status. Standard output and error are
 * the logs, flushed before each reply. Programs that the action starts inherit neither channel, unless they are given
 * this one's standard input.
 *
 * <p>{@code launcher.jar} beside it is this file, compiled: `make launchers`.
 */
public final class Launcher {
    private static final String MISSING = "Missing main/no code to execute.";
    private static final String TWICE = "Cannot initialize the action more than once.";
    private static final String NOT_READY = "Cannot invoke an uninitialized action.";
    private static final String FAILED = "An error has occurred (see logs for details): ";
    private static final String THROWN = "An error has occurred while invoking the action (see logs for details): ";
    private static final int REPLIES = 3;
    private static final int BUFFER_BYTES = 1 << 16;

    private static volatile boolean isOver = false;

    private final InputStream lines;
    private final OutputStream replies;
    private final byte[] buffer = new byte[BUFFER_BYTES];
    private int at = 0;
    private int end = 0;

    private final Map<String, String> environment = openEnvironment();
    private Method ofObject;
    private Method ofArray;

    private Launcher(InputStream lines, OutputStream replies) {
        this.lines = lines;
        this.replies = replies;
    }

    public static void main(String[] arguments) throws Exception {
        InputStream lines = new FileInputStream(FileDescriptor.in);
        Constructor<FileDescriptor> descriptor = FileDescriptor.class.getDeclaredConstructor(int.class);
        descriptor.setAccessible(true); // by `Add-Opens` of the jar: what a pipe's name leads to is another uid's
        OutputStream replies = new FileOutputStream(descriptor.newInstance(REPLIES));
        System.setIn(InputStream.nullInputStream());
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8));
        Launcher launcher = new Launcher(lines, replies);
        if (launcher.environment.remove("VISP_COPIED") != null) {
            launcher.rehearse();
        }
        launcher.serve();
        isOver = true;
        Runtime.getRuntime().halt(0); // threads that the action left behind go with it
    }

    /** Where copies of this process go on: what each start loads is loaded once. */
    private void rehearse() throws IOException, ReflectiveOperationException {
        ClassLoader loader = new URLClassLoader(classPath(new File("/visp")));
        Thread.currentThread().setContextClassLoader(loader);
        loader.getResource("rehearsed");
        refuseExit();
        find(Launcher.class, "rehearsed");
        run("{\"value\":{\"rehearsed\":[1,true,null,\"\"]}}");
        ofObject = null;
    }

    /** The action of a rehearsal. */
    public static JsonObject rehearsed(JsonObject value) {
        return value;
    }

    private void serve() throws IOException {
        String line = readLine();
        if (line == null) {
            return;
        }
        write(init(JsonParser.parseString(line).getAsJsonObject().getAsJsonObject("value")));
        while ((line = readLine()) != null) {
            write(run(line));
        }
    }

    // ── init ────────────────────────────────────────────────────────────────────────────────────────────────────

    private String init(JsonObject value) {
        try {
            if (value.has("env")) {
                value.getAsJsonObject("env").entrySet().forEach(entry -> show(entry.getKey(), entry.getValue()));
            }
            if (!value.has("folder") || !value.has("main")) {
                System.err.println(MISSING);
                return failed(MISSING);
            }
            String[] entry = value.get("main").getAsString().split("#", 2);
            ClassLoader loader = new URLClassLoader(classPath(new File(value.get("folder").getAsString())));
            Thread.currentThread().setContextClassLoader(loader);
            refuseExit();
            find(loader.loadClass(entry[0]), entry.length > 1 ? entry[1] : "main");
            return "{\"ok\":true}";
        } catch (Exception | LinkageError error) {
            error.printStackTrace();
            return failed(FAILED + error);
        }
    }

    private static URL[] classPath(File folder) throws IOException {
        List<URL> path = new ArrayList<>();
        path.add(folder.toURI().toURL());
        File[] jars = new File(folder, "lib").listFiles((in, name) -> name.endsWith(".jar"));
        if (jars != null) {
            Arrays.sort(jars);
            for (File jar : jars) {
                path.add(jar.toURI().toURL());
            }
        }
        return path.toArray(new URL[0]);
    }

    private void find(Class<?> type, String name) throws NoSuchMethodException {
        for (Method method : type.getMethods()) {
            Class<?>[] taken = method.getParameterTypes();
            if (!method.getName().equals(name) || taken.length != 1 || !Modifier.isStatic(method.getModifiers())
                    || !JsonElement.class.isAssignableFrom(method.getReturnType())) {
                continue;
            }
            method.setAccessible(true);
            if (taken[0].isAssignableFrom(JsonObject.class)) {
                ofObject = method;
            }
            if (taken[0].isAssignableFrom(JsonArray.class)) {
                ofArray = method;
            }
        }
        if (ofObject == null && ofArray == null) {
            throw new NoSuchMethodException(name);
        }
    }

    // ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────

    private String run(String line) {
        try {
            JsonObject message = JsonParser.parseString(line).getAsJsonObject();
            if (isInit(message)) {
                System.err.println(TWICE);
                return failed(TWICE);
            }
            if (ofObject == null && ofArray == null) {
                return failed(NOT_READY);
            }
            for (Map.Entry<String, JsonElement> entry : message.entrySet()) {
                if (!entry.getKey().equals("value")) {
                    show("__OW_" + entry.getKey().toUpperCase(), entry.getValue());
                }
            }
            JsonElement value = message.has("value") ? message.get("value") : new JsonObject();
            Method action = value.isJsonArray() ? ofArray : ofObject;
            if (action == null) {
                throw new NoSuchMethodException("the action takes no " + value.getClass().getSimpleName());
            }
            Object result = action.invoke(null, value);
            if (result == null) {
                throw new NullPointerException("The action returned null");
            }
            return result.toString();
        } catch (InvocationTargetException error) {
            error.getCause().printStackTrace();
            return failed(THROWN + error.getCause());
        } catch (Exception | StackOverflowError | OutOfMemoryError error) {
            error.printStackTrace();
            return failed(FAILED + error);
        }
    }

    /** An init line that comes again: a run body says for which activation it is. */
    private static boolean isInit(JsonObject message) {
        if (message.size() != 1 || !message.has("value") || !message.get("value").isJsonObject()) {
            return false;
        }
        JsonObject value = message.getAsJsonObject("value");
        return value.has("name") && value.has("main") && value.has("env");
    }

    private void show(String name, JsonElement value) {
        if (value.isJsonPrimitive()) {
            environment.put(name, value.getAsString());
        }
    }

    /** What {@code System.getenv} reads; a map that nobody reads where it cannot be had. */
    @SuppressWarnings("unchecked")
    private static Map<String, String> openEnvironment() {
        try {
            Map<String, String> shown = System.getenv();
            Field field = shown.getClass().getDeclaredField("m");
            field.setAccessible(true);
            return (Map<String, String>) field.get(shown);
        } catch (ReflectiveOperationException | RuntimeException error) {
            return new HashMap<>();
        }
    }

    /**
     * {@code System.exit} is an exception of the action's, as in the official image. By way of a private method: the
     * public one prints a warning into the action's logs.
     */
    @SuppressWarnings("removal")
    private static void refuseExit() throws ReflectiveOperationException {
        Method set = System.class.getDeclaredMethod("implSetSecurityManager", SecurityManager.class);
        set.setAccessible(true);
        set.invoke(null, new SecurityManager() {
            @Override
            public void checkPermission(Permission permission) {}

            @Override
            public void checkPermission(Permission permission, Object context) {}

            @Override
            public void checkExit(int status) {
                if (!isOver) {
                    throw new SecurityException("System.exit(" + status + ") called from within an action.");
                }
            }
        });
    }

    // ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────

    /** The next line; null at the end. */
    private String readLine() throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        while (true) {
            for (int from = at; at < end; at++) {
                if (buffer[at] == '\n') {
                    line.write(buffer, from, at - from);
                    at++;
                    return line.toString(StandardCharsets.UTF_8);
                }
                if (at == end - 1) {
                    line.write(buffer, from, end - from);
                }
            }
            at = 0;
            end = lines.read(buffer);
            if (end < 0) {
                return null;
            }
        }
    }

    private void write(String reply) throws IOException {
        System.out.flush();
        System.err.flush();
        replies.write((reply + "\n").getBytes(StandardCharsets.UTF_8));
    }

    private static String failed(String sentence) {
        return "!{\"error\":" + new JsonPrimitive(sentence) + "}";
    }
}
