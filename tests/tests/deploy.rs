//! The image and the manifests of `deploy`: a pod that is made of them is started for real, beside
//! a real broker, and what can't be started here is validated.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sidestream_tests::{
    agent::{PATIENCE, binary},
    broker,
    containers::{self, Containers, output},
    follow::{Follower, lag},
    load::Load,
    members,
    operate::{ask, configure, http, read_metrics},
    pod::{AGENT, APPLICATION, POD, Pod, deploy, python},
    scene::Scene,
    tools, topics, wait,
    word_count::{WORD_COUNT, WORD_COUNT_FOR_PEOPLE},
};

/// The agent's user and group in the image and the manifests.
const USER: &str = "65532";

/// Says something that is for whoever runs this, also when all is well.
fn say(text: &str) {
    // Straight to the stream: the macros' output is kept back until a test fails.
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn feed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {command:?}"))?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}

/// The first document of a YAML text.
fn yaml(text: &str) -> Result<Value> {
    const CONVERT: &str =
        "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    Ok(serde_json::from_str(&feed(python()?.args(["-c", CONVERT]), text)?)?)
}

fn manifest(name: &str) -> Result<Value> {
    yaml(&std::fs::read_to_string(deploy("kubernetes").join(name))?)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

// ---- Manifests ---------------------------------------------------------------------------------

/// Validates files, unknown keys included, by what a version of Kubernetes knows.
fn validate(version: &str, files: &[PathBuf]) -> Result<String> {
    let program = tools::cached("tools/kubernetes-validate/bin/kubernetes-validate")?;
    let mut command = Command::new(program);
    output(command.args(["--strict", "--kubernetes-version", version]).args(files))
}

#[test]
fn kubernetes_knows_every_key_of_the_manifests() -> Result<()> {
    let files = std::fs::read_dir(deploy("kubernetes"))?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<Result<Vec<_>>>()?;
    ensure!(files.len() == 5, "{files:?}");
    for version in ["1.29", "1.37"] {
        validate(version, &files)?;
    }
    // It would see what is wrong: native sidecars are younger than this, and a key is misspelled.
    let stateful_set = deploy("kubernetes/statefulset.yaml");
    let old = validate("1.27", std::slice::from_ref(&stateful_set));
    ensure!(format!("{:?}", old.unwrap_err()).contains("restartPolicy"), "1.27 has no sidecars");
    let folder = tempfile::tempdir()?;
    let misspelled = folder.path().join("statefulset.yaml");
    let content = std::fs::read_to_string(stateful_set)?;
    std::fs::write(&misspelled, content.replace("livenessProbe", "livelinessProbe"))?;
    let refused = validate("1.37", &[misspelled]);
    ensure!(format!("{:?}", refused.unwrap_err()).contains("livelinessProbe"), "misspelled");
    Ok(())
}

/// A number before its unit.
fn number(value: &Value, unit: &str) -> Result<u64> {
    let number = text(value).strip_suffix(unit);
    Ok(number.with_context(|| format!("{value} is not in {unit}"))?.parse()?)
}

#[test]
fn the_manifests_agree_with_each_other_and_with_the_pipeline() -> Result<()> {
    let [stateful_set, service, config] =
        ["statefulset.yaml", "service.yaml", "configmap.yaml"].map(manifest);
    let (stateful_set, service, config) = (stateful_set?, service?, config?);
    let (spec, pipeline) = (&stateful_set["spec"], yaml(text(&config["data"]["pipeline.yaml"]))?);
    let pod = &spec["template"]["spec"];
    let readme = std::fs::read_to_string(deploy("README.md"))?;
    let image = format!("s|image: {}|", text(&pod["initContainers"][0]["image"]));
    ensure!(readme.contains(&image), "the README replaces another image than {image}");
    let sidecar = &pod["initContainers"][0];
    ensure!(sidecar["restartPolicy"] == "Always", "a native sidecar");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        ensure!(sidecar[probe]["httpGet"]["port"] == sidecar["ports"][0]["name"], "{probe}");
    }
    // The application may take as long as the agent, and then something is left.
    let deadline = number(&pipeline["shutdown"]["deadline"], "s")?;
    let grace = pod["terminationGracePeriodSeconds"].as_u64().context("a number")?;
    ensure!(grace > 2 * deadline, "{grace} s for both, {deadline} s for the agent");
    let limit = number(&sidecar["resources"]["limits"]["memory"], "Mi")?;
    let memory = number(&pipeline["memory_max"], "MiB")?;
    let compiler = number(&pipeline["limits"]["compile_memory_max"], "MiB")?;
    let own = limit - compiler;
    ensure!(own * 4 >= memory * 5, "{own} MiB for {memory} MiB and the process itself");
    for container in [sidecar, &pod["containers"][0]] {
        let security = &container["securityContext"];
        ensure!(security["readOnlyRootFilesystem"] == true, "{container}");
        ensure!(security["allowPrivilegeEscalation"] == false, "{container}");
        ensure!(security["capabilities"]["drop"][0] == "ALL", "{container}");
    }
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "{pod}");
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{pod}");
    ensure!(spec["serviceName"] == service["metadata"]["name"], "the pods' names");
    ensure!(service["spec"]["clusterIP"] == "None", "a name for each pod");
    ensure!(service["spec"]["selector"] == spec["template"]["metadata"]["labels"], "its pods");
    ensure!(spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"], "its pods");
    check_who_reaches_what(pod, &pipeline)?;
    let labels = &spec["template"]["metadata"]["labels"];
    let policy = manifest("networkpolicy.yaml")?;
    ensure!(policy["spec"]["podSelector"]["matchLabels"] == *labels, "its pods");
    let open = &policy["spec"]["ingress"];
    ensure!(open.as_array().is_some_and(|rules| rules.len() == 1), "{policy}");
    ensure!(open[0]["ports"][0]["port"] == sidecar["ports"][0]["name"], "metrics alone: {policy}");
    let budget = manifest("poddisruptionbudget.yaml")?;
    ensure!(budget["spec"]["selector"]["matchLabels"] == *labels, "its pods");
    Ok(())
}

/// The application has the socket for reads, and can't put another one in its place; the one that
/// may swap and drain is where the agent alone is.
fn check_who_reaches_what(pod: &Value, pipeline: &Value) -> Result<()> {
    let (sidecar, application) = (&pod["initContainers"][0], &pod["containers"][0]);
    let control = &pipeline["control"];
    ensure!(control["listen"].is_null(), "in the state directory: {control}");
    let listen = text(&control["read_only"]["listen"]);
    ensure!(application["env"][0]["value"] == listen, "{listen}: {application}");
    let mounts = application["volumeMounts"].as_array().context("mounts")?;
    let [folder] = mounts.as_slice() else { anyhow::bail!("one mount: {application}") };
    ensure!(folder["readOnly"] == true, "{folder}");
    let socket = listen.strip_prefix("unix:").context("a socket")?;
    ensure!(socket.starts_with(text(&folder["mountPath"])), "{socket} is in {folder}");
    let state = text(&pipeline["state"]["directory"]);
    let own = sidecar["volumeMounts"].as_array().context("mounts")?;
    let name = own.iter().find(|mount| mount["mountPath"] == state).context("the state's mount")?;
    ensure!(mounts.iter().all(|mount| mount["name"] != name["name"]), "the state is the agent's");
    Ok(())
}

// ---- Metrics -----------------------------------------------------------------------------------

#[test]
fn promtool_accepts_the_metrics_of_a_running_agent() -> Result<()> {
    let mut scene = Scene::new(&broker::embedded().bootstrap(), WORD_COUNT)?;
    scene.start_load(3)?;
    scene.add_agent()?;
    configure(&scene.agents[0], "http: { listen: 0 }")?;
    scene.agents[0].start()?;
    scene.wait_for_progress()?;
    let status = ask(&scene.agents[0], &["status"])?;
    let (code, _, metrics) = http(text(&status["http_address"]), "GET", "/metrics")?;
    ensure!(code == 200 && read_metrics(&metrics)?.len() > 50, "{code} {metrics}");
    let promtool = tools::cached("tools/bin/promtool")?;
    let said = feed(Command::new(&promtool).args(["check", "metrics"]), &metrics)?;
    ensure!(said.trim().is_empty(), "{said}");
    // It would complain.
    let wrong = feed(Command::new(promtool).args(["check", "metrics"]), "a_count 1\n");
    ensure!(wrong.is_err(), "a metric without a help text");
    scene.settle().map(drop)
}

// ---- The image and the pod ---------------------------------------------------------------------

/// What the agent links beside Rust.
const LIBRARIES: &[&str] = &["OpenSSL", "RocksDB", "curl", "librdkafka", "lz4", "zlib", "zstd"];

#[test]
fn the_notice_names_every_library_that_the_binary_links() -> Result<()> {
    output(Command::new("python3").arg(deploy("notice.py")).arg("--check"))?;
    let notice = std::fs::read_to_string(deploy("NOTICE"))?;
    for library in LIBRARIES {
        let line = |line: &&str| {
            let version = line.strip_prefix(library);
            version.is_some_and(|rest| rest.starts_with(' ') && rest.contains("(by the crate "))
        };
        let line = notice.lines().find(line).with_context(|| format!("no {library}"))?;
        let version = line.split(' ').nth(1).context("a version")?;
        let title = format!("{library} {version}");
        ensure!(notice.lines().any(|of| of == title), "{library} has no licence");
        // The one that says in a program which it is.
        if *library == "OpenSSL" {
            let binary = std::fs::read(binary()?)?;
            let is_said = binary.windows(title.len()).any(|bytes| bytes == title.as_bytes());
            ensure!(is_said, "{title} is not what is linked");
        }
    }
    Ok(())
}

/// The licences are in the image as they are in the repository.
fn check_licences(containers: &Containers) -> Result<()> {
    let id = containers.podman(&["create", "sidestream:0.1.0"])?;
    for (name, file) in [("LICENSE", deploy("../LICENSE")), ("NOTICE", deploy("NOTICE"))] {
        let copy = containers.folder().join(name);
        let from = format!("{}:/usr/share/doc/sidestream/{name}", id.trim());
        containers.podman(&["cp", &from, &copy.display().to_string()])?;
        ensure!(std::fs::read(copy)? == std::fs::read(file)?, "{name} is another in the image");
    }
    containers.podman(&["rm", id.trim()]).map(drop)
}

/// Builds both images of root file systems in the cache; says how large the agent's is, and how
/// long its start takes.
fn build(containers: &Containers) -> Result<()> {
    for (root, script, argument) in
        [("agent", "image.sh", Some(binary()?)), ("python", "example/image.sh", None)]
    {
        let base = format!("localhost/{root}-base");
        containers.import(root, &base)?;
        output(containers.command(&deploy(script)).args(argument).env("BASE", base))?;
    }
    let size =
        containers.podman(&["image", "inspect", "sidestream:0.1.0", "--format", "{{.Size}}"])?;
    let start = Instant::now();
    let version = containers.run(&["sidestream:0.1.0", "--version"])?;
    let took = start.elapsed().as_millis();
    ensure!(version.starts_with("sidestream "), "{version}");
    check_licences(containers)?;
    let size = size.trim().parse::<u64>()? >> 20;
    say(&format!("image: {size} MiB (debug build), a container starts and ends in {took} ms"));
    Ok(())
}

/// The places of a container that can be written, but for what belongs to the kernel.
fn writable(mounts: &str) -> Vec<&str> {
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let writable = mounts.filter(|fields| fields[5].split(',').any(|option| option == "rw"));
    let kernel = |place: &str| ["/proc", "/dev", "/sys"].iter().any(|top| place.starts_with(top));
    writable.map(|fields| fields[4]).filter(|place| !kernel(place)).collect()
}

/// Both containers run as nobody special and can write to their volumes alone.
fn check_confinement(containers: &Containers) -> Result<()> {
    for (container, places) in
        [(AGENT, &["/run/sidestream", "/var/lib/sidestream"][..]), (APPLICATION, &[])]
    {
        let mounts = containers.process_file(container, "mountinfo")?;
        let mut found = writable(&mounts);
        found.sort_unstable();
        ensure!(found == places, "{container}: {mounts}");
        let status = containers.process_file(container, "status")?;
        let row = |name: &str| -> Vec<String> {
            let row = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            row.split_whitespace().map(str::to_owned).collect()
        };
        ensure!(row("Uid:") == [USER; 4] && row("Gid:") == [USER; 4], "{container}: {status}");
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(row(capabilities) == ["0000000000000000"], "{container}: {status}");
        }
        ensure!(row("NoNewPrivs:") == ["1"], "{container}: {status}");
    }
    for place in ["/written", "/tmp/written", "/application/written"] {
        let write = format!("open('{place}', 'w')");
        let refused = containers.podman(&["exec", APPLICATION, "python3", "-c", &write]);
        let refusal = format!("{:?}", refused.unwrap_err());
        let missing = place == "/tmp/written" && refusal.contains("No such file");
        ensure!(missing || refusal.contains("Read-only file system"), "{place}: {refusal}");
    }
    Ok(())
}

/// The counts of all lines, without any help of the agent.
fn count(bootstrap: &str) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for line in Follower::new(bootstrap, "lines")?.read_to_end(PATIENCE)? {
        for word in line.value_text().split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}

fn check_group(bootstrap: &str) -> Result<()> {
    let members = || {
        let members = members::assignments(bootstrap, "word-count")?;
        let own = |name: &String| name.starts_with(&format!("{POD}-"));
        Ok(!members.is_empty() && members.keys().all(own))
    };
    wait::until_true("group instance ids from the pod's name", PATIENCE, members)
}

fn check_nothing_open(bootstrap: &str) -> Result<()> {
    let observer = topics::Observer::new(bootstrap, "word-count")?;
    for topic in ["counts", "word-count-words-repartition", "word-count-counts-changelog"] {
        let open = observer.open_transactions(topic, 4)?;
        ensure!(open.is_empty(), "{topic} has an open transaction after the drain: {open:?}");
    }
    Ok(())
}

/// Waits until the application has printed the right count of each word that it asks for.
fn check_counts(pod: &Pod<'_>, bootstrap: &str) -> Result<()> {
    let all = count(bootstrap)?;
    let right = || {
        let printed = pod.printed()?;
        let last = |(word, counts): (&String, &Vec<u64>)| counts.last() == all.get(word);
        ensure!(printed.len() == 3 && printed.iter().all(last), "{printed:?} of {all:?}");
        Ok(true)
    };
    wait::until_true("right counts", PATIENCE, right).with_context(|| pod.told().unwrap())?;
    for (word, counts) in pod.printed()? {
        ensure!(counts.is_sorted(), "{word} was printed as {counts:?}");
    }
    Ok(())
}

#[test]
fn a_pod_of_application_and_agent_counts_drains_and_goes_on() -> Result<()> {
    let Some(containers) = Containers::new()? else {
        say(&format!("no image is built and no pod started: {} is set", containers::WITHOUT));
        return Ok(());
    };
    build(&containers)?;
    let bootstrap = broker::shared().bootstrap();
    for topic in ["lines", "counts"] {
        topics::create(&bootstrap, topic, 4, &[])?;
    }
    let grace = &manifest("statefulset.yaml")?["spec"]["template"]["spec"];
    let grace = grace["terminationGracePeriodSeconds"].as_u64().context("a number")?;
    let pod = Pod::new(&containers, &bootstrap)?;
    let maker = WORD_COUNT_FOR_PEOPLE.inputs[0].1;
    let load = Load::start(&bootstrap, "lines", (7, maker), 100)?;
    let start = Instant::now();
    pod.play()?;
    pod.wait_until("/livez")?;
    let alive = start.elapsed().as_millis();
    pod.wait_until("/readyz")?;
    let ready = start.elapsed().as_millis();
    say(&format!("pod: alive {alive} ms after podman was asked for it, ready after {ready} ms"));
    check_confinement(&containers)?;
    check_group(&bootstrap)?;
    let some = || Ok(pod.printed()?.len() == 3);
    wait::until_true("printed counts", PATIENCE, some).with_context(|| pod.told().unwrap())?;
    // While there is much to do.
    pod.stop(grace)?;
    check_nothing_open(&bootstrap)?;
    containers.podman(&["pod", "start", POD])?;
    pod.wait_until("/readyz")?;
    // While words go on coming.
    let several = || Ok(pod.printed()?.values().all(|counts| counts.len() > 2));
    wait::until_true("counts that go on", PATIENCE, several)
        .with_context(|| pod.told().unwrap())?;
    let sent = load.finish()?;
    check_counts(&pod, &bootstrap)?;
    ensure!(pod.probe("/livez")? == 200 && pod.probe("/readyz")? == 200, "probes");
    pod.stop(grace)?;
    check_nothing_open(&bootstrap)?;
    let committed = topics::committed(&bootstrap, "word-count", "lines")?;
    let committed: i64 = committed.into_iter().flatten().sum();
    ensure!(u64::try_from(committed)? == sent, "{committed} of {sent} are committed");
    ensure!(lag(&bootstrap, "word-count", "word-count-words-repartition")? == 0, "words are left");
    pod.down()
}
