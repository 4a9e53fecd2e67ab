"""Compiles an action in Java: `exec`, one file of source, or an archive of sources, to the tree of a jar.

Sources are every `.java` file of the archive; below `src/main/resources`, or beside the sources, lie resources. Jars in
`lib` are on the class path, and stay there for the launcher; Maven brings those that a `pom.xml` needs at run time.
"""

import os
import re
import shutil
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from building import PROGRAM, TMP, WORK, Failed, copy, resolve, run, say

PUBLIC = re.compile(
    r"^\s*public\s+(?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|record|interface|enum)\s+(\w+)", re.M
)
SOURCE_ROOTS = ("src/main/java", "src", "")
RESOURCES = "src/main/resources"
LIBRARIES = "lib"
COMPILER = "jdk.compiler/com.sun.tools.javac.Main"
"""It is part of the runtime: no JDK is needed."""
JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-m", COMPILER]
OPTIONS = ["-encoding", "UTF-8", "-parameters", "-g"]
POM, MAVEN = "pom.xml", "/usr/bin/mvn"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
SETTINGS = "<settings>\n<proxies>\n%s</proxies>\n<mirrors>\n%s</mirrors>\n</settings>\n"
PROXY = """<proxy><id>%s</id><active>true</active><protocol>%s</protocol><host>%s</host><port>%d</port>
<nonProxyHosts>%s</nonProxyHosts></proxy>
"""
MIRROR = "<mirror><id>mirror</id><mirrorOf>*</mirrorOf><url>%s</url></mirror>\n"


def build(source, target, main):
    if os.path.isfile(os.path.join(source, PROGRAM)):
        os.makedirs(WORK)
        with open(os.path.join(source, PROGRAM), encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        found = PUBLIC.search(text)
        name = found.group(1) if found else main.partition("#")[0].rpartition(".")[2]
        if not re.match(r"\w+\Z", name):
            raise Failed(f"'{main}' names no class")
        with open(os.path.join(WORK, name + ".java"), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    else:
        copy(source, WORK)
        if os.path.isfile(os.path.join(WORK, POM)):
            bring_libraries()
    compile(target)


def bring_libraries():
    """What the `pom.xml` depends on, beside the jars that the archive has."""
    if not os.path.exists(MAVEN):
        raise Failed("pom.xml names libraries, and Maven is not on the server: apt-get install maven", False)
    say("resolving pom.xml")
    settings = os.path.join(TMP, "settings.xml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write(settings_of(os.environ))
    env = {"JAVA_HOME": os.path.dirname(os.path.dirname(os.environ["JAVA"])), "HOME": TMP}
    env["MAVEN_OPTS"] = f"-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.home={TMP} -Djava.io.tmpdir={TMP}"
    argv = [MAVEN, "--quiet", "--batch-mode", "--no-transfer-progress", "--settings", settings, COPY]
    argv += [f"-Dmaven.repo.local={TMP}/m2", "-DincludeScope=runtime", "-Dmdep.useBaseVersion=true"]
    resolve([*argv, f"-DoutputDirectory={os.path.join(WORK, LIBRARIES)}"], WORK, env)


def settings_of(variables):
    """Maven's settings: it knows none of the variables by which all others learn of a proxy or a mirror."""
    direct = "|".join(name for name in variables.get("NO_PROXY", "").split(",") if name)
    proxies = ""
    for scheme in ("http", "https"):
        proxy = urlsplit(variables.get(scheme.upper() + "_PROXY", ""))
        if proxy.hostname:
            proxies += PROXY % (scheme, scheme, escape(proxy.hostname), proxy.port or 80, escape(direct))
    mirror = variables.get("MAVEN_MIRROR_URL")
    return SETTINGS % (proxies, MIRROR % escape(mirror) if mirror else "")


def compile(target):
    root = next(path for path in (os.path.join(WORK, part) for part in SOURCE_ROOTS) if os.path.isdir(path))
    sources = [path for path in walk(root) if path.endswith(".java")]
    if not sources:
        raise Failed("there is no Java source in the archive")
    libraries = sorted(path for path in walk(os.path.join(WORK, LIBRARIES)) if path.endswith(".jar"))
    path = os.pathsep.join([os.environ["GSON"], *libraries])
    os.makedirs(os.path.join(target, LIBRARIES))
    for library in libraries:
        shutil.copy(library, os.path.join(target, LIBRARIES))
    for folder in (root, os.path.join(WORK, RESOURCES)):
        bring_resources(folder, target)
    listed = os.path.join(TMP, "sources")
    with open(listed, "w") as file:
        file.writelines('"%s"\n' % path.replace("\\", "\\\\").replace('"', '\\"') for path in sources)
    run([os.environ["JAVA"], *JAVA, *OPTIONS, "-cp", path, "-d", target, "@" + listed], root)


def bring_resources(folder, target):
    """What is no source, where it lies among the classes."""
    for path in walk(folder):
        inside = os.path.relpath(path, folder)
        if path.endswith((".java", ".class")) or inside.startswith((LIBRARIES + "/", "main/")):
            continue
        os.makedirs(os.path.dirname(os.path.join(target, inside)), exist_ok=True)
        shutil.copy(path, os.path.join(target, inside))


def walk(folder):
    """The paths of its files; links are none."""
    return sorted(
        os.path.join(path, name)
        for path, _, names in os.walk(folder)
        for name in names
        if not os.path.islink(os.path.join(path, name))
    )
