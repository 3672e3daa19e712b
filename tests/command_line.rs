//! Verbs of the command line against a broker, as somebody at a terminal uses them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;

const PATIENCE: Duration = Duration::from_secs(30);

/// A broker of its own for each test, in memory and never left behind.
struct Broker {
    child: Child,
    native: String,
    amqp: String,
    stomp: String,
    http: String,
}

impl Broker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(directory.path(), true)
    }

    fn start_in(directory: &Path, in_memory: bool) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["serve", "--http-listen", "127.0.0.1:0", "--native-listen", "127.0.0.1:0"])
            .args(["--amqp-listen", "127.0.0.1:0", "--stomp-listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory)
            .env("PILLARBOX__STORE__IN_MEMORY", in_memory.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let [native, amqp, stomp, http] = [const { String::new() }; 4];
        let mut broker = Self { child, native, amqp, stomp, http };
        let out = BufReader::new(broker.child.stdout.take().unwrap());
        for line in out.lines().map(Result::unwrap).take_while(|line| line != "ready") {
            for (prefix, place) in [
                ("listening native ", &mut broker.native),
                ("listening amqp ", &mut broker.amqp),
                ("listening stomp ", &mut broker.stomp),
                ("listening http ", &mut broker.http),
            ] {
                if let Some(address) = line.strip_prefix(prefix) {
                    *place = address.to_owned();
                }
            }
        }
        assert!(!broker.native.is_empty(), "the broker does not start");
        broker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(arguments);
        command.env("PILLARBOX_BROKER", &self.native).env("PILLARBOX_HTTP", &self.http);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", told(&output).1);
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str]) -> (Option<i32>, String) {
        told(&self.command(arguments).output().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn browse_shows_messages_and_takes_none() {
    let broker = Broker::start();
    let missing = broker.fails(&["browse", "jobs"]);
    assert_eq!(missing.0, Some(4));
    assert!(missing.1.contains("pillarbox mailbox declare jobs"), "{}", missing.1);
    broker.run(&["mailbox", "declare", "jobs"]);
    assert_eq!(broker.fails(&["browse", "jobs"]).0, Some(4));
    broker.run(&["push", "jobs", "first\nline", "--type", "note"]);
    broker.run(&["push", "jobs", "second"]);
    for _ in 0..2 {
        let table = broker.run(&["browse", "jobs"]);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["SEQ", "STATE", "REDELIVERED", "SIZE", "BODY"]);
        assert_eq!(lines[1], ["1", "ready", "no", "10", "first·line"]);
        assert_eq!(lines[2], ["2", "ready", "no", "6", "second"]);
    }
    let json = broker.run(&["browse", "jobs", "--count", "1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["body"], &json["type"]), (&"first\nline".into(), &"note".into()));
    let rest = ["browse", "jobs", "--json", "--after", json["place"].as_str().unwrap()];
    let rest: serde_json::Value = serde_json::from_str(&broker.run(&rest)).unwrap();
    assert_eq!(rest["body"], "second");
    let notes = broker.run(&["browse", "jobs", "--where", "type = 'note'", "--state", "ready"]);
    assert_eq!(notes.lines().count(), 2, "{notes}");
    assert_eq!(broker.fails(&["browse", "jobs", "--state", "delayed"]).0, Some(4));
    assert_eq!(broker.fails(&["browse", "jobs", "--where", "type ="]).0, Some(1));
    assert_eq!(broker.fails(&["browse", "jobs", "--state", "gone"]).0, Some(2));
    assert_eq!(broker.run(&["pull", "jobs"]), "first\nline\n");
}

#[test]
fn top_shows_a_mailbox_and_ends_without_a_terminal() {
    let broker = Broker::start();
    broker.run(&["mailbox", "declare", "jobs"]);
    broker.run(&["push", "jobs", "one"]);
    let table = broker.run(&["top", "--interval", "100ms"]);
    assert!(table.starts_with("MAILBOX"), "{table}");
    assert!(table.contains("jobs"), "{table}");
    let json = broker.run(&["top", "--once", "--json", "--interval", "100ms"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["ready"]), (&"jobs".into(), &1.into()));
}

#[test]
fn a_subscriber_prints_what_is_published_to_its_topics() {
    let broker = Broker::start();
    let subscribe = ["subscribe", "house/+/heat", "--count", "1", "--json"];
    let mut subscriber = broker.command(&subscribe).spawn().unwrap();
    let start = Instant::now();
    while subscriber.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "nothing came");
        broker.run(&["publish", "house/kitchen/light", "on"]);
        broker.run(&["publish", "house/kitchen/heat", "21"]);
    }
    let output = subscriber.wait_with_output().unwrap();
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["topic"], &json["body"]), (&"house/kitchen/heat".into(), &"21".into()));
}

#[test]
fn a_request_without_an_answer_says_why() {
    let broker = Broker::start();
    broker.run(&["mailbox", "declare", "sums"]);
    let (code, text) = broker.fails(&["request", "sums", "1+1", "--wait", "100ms"]);
    assert_eq!(code, Some(4));
    assert!(text.contains("nobody consumes from it"), "{text}");
    assert_eq!(broker.fails(&["request", "missing", "1+1"]).0, Some(4));
}

#[test]
fn a_will_tells_of_a_worker_that_was_killed() {
    let broker = Broker::start();
    for mailbox in ["jobs", "log"] {
        broker.run(&["mailbox", "declare", mailbox]);
    }
    let work = ["pull", "jobs", "--follow", "--will", "log=a worker was lost"];
    let mut worker = broker.command(&work).spawn().unwrap();
    broker.run(&["push", "jobs", "one"]);
    let mut line = String::new();
    BufReader::new(worker.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(broker.run(&["pull", "log", "--wait", "30s"]), "a worker was lost\n");
    // One that found nothing was not lost.
    broker.run(&["mailbox", "purge", "jobs"]);
    assert_eq!(broker.fails(&["pull", "jobs", "--will", "log=lost"]).0, Some(4));
    assert_eq!(broker.fails(&["pull", "log"]).0, Some(4));
}

#[test]
fn a_pipe_joins_two_programs_and_notices_a_death() {
    let broker = Broker::start();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
    let listener = broker.command(&["pipe", "--listen", "x", "--wait", "30s"]).spawn().unwrap();
    let mut connect = broker.command(&["pipe", "--connect", "x", "--wait", "30s"]);
    let mut connector = connect.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = connector.stdin.take().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || input.write_all(&sent).unwrap());
    let output = listener.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success(), "{}", told(&output).1);
    assert!(output.stdout == bytes, "{} bytes came", output.stdout.len());
    assert!(connector.wait_with_output().unwrap().status.success());

    let mut listen = broker.command(&["pipe", "--listen", "x", "--wait", "30s"]);
    let mut listener = listen.stdin(Stdio::piped()).spawn().unwrap();
    let mut connector = broker
        .command(&["pipe", "--connect", "x", "--wait", "30s"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    listener.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    let mut first = [0];
    std::io::Read::read_exact(connector.stdout.as_mut().unwrap(), &mut first).unwrap();
    connector.kill().unwrap();
    connector.wait().unwrap();
    let output = listener.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(broker.fails(&["pipe", "--connect", "nobody", "--wait", "0s"]).0, Some(4));
}

#[rstest]
fn bench_checks_every_message(
    #[values("native", "amqp", "stomp")] protocol: &str,
    #[values(
        "",
        "--size 16 --queues 3",
        "--fanout 3 --transient",
        "--bindings 20",
        "--fill --stream"
    )]
    scene: &str,
) {
    let broker = Broker::start();
    let (amqp, stomp) = (broker.amqp.clone(), broker.stomp.clone());
    let arguments = ["bench", "--protocol", protocol, "--amqp", &amqp, "--stomp", &stomp];
    let mut arguments = [&arguments[..], &["-n", "3000", "--json"]].concat();
    arguments.extend(scene.split_whitespace());
    let json: serde_json::Value = serde_json::from_str(&broker.run(&arguments)).unwrap();
    assert_eq!((&json["messages"], &json["lost"]), (&3000.into(), &0.into()));
    let copies = if scene.contains("fanout") { 3 } else { 1 };
    assert_eq!(json["deliveries"], 3000 * copies);
    assert!(json["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert_eq!(broker.run(&["mailbox", "list", "--json"]).trim(), "[]");
    let exchanges = broker.run(&["exchange", "list", "--json"]);
    assert!(!exchanges.contains("bench"), "{exchanges}");
}

#[rstest]
fn bench_counts_connections(#[values("native", "amqp", "stomp")] protocol: &str) {
    let broker = Broker::start();
    let (amqp, stomp) = (broker.amqp.clone(), broker.stomp.clone());
    for (flag, count) in [("--idle", 20), ("--churn", 2)] {
        let count = count.to_string();
        let json = broker.run(&[
            "bench",
            "--protocol",
            protocol,
            "--amqp",
            &amqp,
            "--stomp",
            &stomp,
            flag,
            &count,
            "--duration",
            "100ms",
            "--json",
        ]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let made = json["connections"].as_u64().unwrap();
        assert!(if flag == "--idle" { made == 20 } else { made >= 2 }, "{json}");
    }
}

#[test]
fn health_is_an_exit_code() {
    let broker = Broker::start();
    assert_eq!(broker.run(&["health"]), "ok\n");
    // Another protocol, and nobody at all.
    for elsewhere in [&broker.amqp, "127.0.0.1:1"] {
        let (code, text) = broker.fails(&["health", "--http", elsewhere]);
        assert_eq!(code, Some(3), "{elsewhere}: {text}");
    }
}

#[test]
fn definitions_move_between_brokers_that_run_and_that_do_not() {
    let broker = Broker::start();
    broker.run(&["mailbox", "declare", "jobs", "--max-length", "5"]);
    broker.run(&["exchange", "declare", "logs", "--kind", "topic"]);
    broker.run(&["bind", "logs", "jobs", "--key", "a.#"]);
    assert!(broker.run(&["exchange", "list"]).contains("logs"));
    assert!(broker.run(&["binding", "list"]).contains("a.#"));
    broker.run(&["vhost", "put", "test", "--tag", "one"]);
    assert!(broker.run(&["vhost", "list"]).contains("test"));
    broker.run(&["vhost", "delete", "test"]);
    assert!(broker.run(&["user", "list"]).contains("guest"));
    assert!(broker.run(&["permission", "list"]).contains(".*"));
    assert_eq!(broker.fails(&["connection", "close", "9999"]).0, Some(4));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (first, second, store) = (path("first.json"), path("second.json"), path("store"));
    std::fs::create_dir(&store).unwrap();
    broker.run(&["definitions", "export", &first]);
    let offline = ["--data-dir", store.as_str()];
    broker.run(&[&["definitions", "import", &first][..], &offline].concat());
    // What is there already is no trouble.
    broker.run(&[&["definitions", "import", &first][..], &offline].concat());
    broker.run(&[&["definitions", "export", &second][..], &offline].concat());
    let [first, second] = [first, second].map(|it| std::fs::read_to_string(it).unwrap());
    assert_eq!(first, second);
    assert!(first.contains("\"x-max-length\": 5") && first.contains("\"a.#\""), "{first}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path("first.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there are hashes of passwords in it");

    let other = path("other.json");
    let nowhere = r#"{"queues": [{"name": "q", "vhost": "nowhere", "durable": true, "auto_delete": false, "arguments": {}}]}"#;
    std::fs::write(&other, nowhere).unwrap();
    let (code, text) = broker.fails(&["definitions", "import", &other]);
    assert_eq!((code, text.trim()), (Some(1), "pillarbox: 1 definitions were not taken"));
    let (code, text) = broker.fails(&["definitions", "export", "--password", "wrong"]);
    assert_eq!(code, Some(3), "{text}");
    let (code, text) = broker.fails(&["definitions", "export", "--data-dir", &path("nowhere")]);
    assert_eq!(code, Some(2), "{text}");
}

/// Commands of somebody who may read the data directory, and knows no password.
fn by_owner(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.args(arguments).arg("--data-dir").arg(directory).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    told(&child.wait_with_output().unwrap())
}

#[test]
fn who_may_read_the_data_directory_needs_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("owner.json");
    let broker = Broker::start_in(directory.path(), false);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let owner = |arguments: &[&str]| by_owner(directory.path(), arguments);
    assert_eq!(owner(&["user", "put", "anna", "--tag", "administrator"]).0, Some(0));
    let file = directory.path().join("definitions.json");
    let exported = owner(&["definitions", "export", file.to_str().unwrap()]);
    assert_eq!(exported.0, Some(0), "{}", exported.1);
    assert!(std::fs::read_to_string(&file).unwrap().contains("\"anna\""));
    let imported = owner(&["definitions", "import", file.to_str().unwrap()]);
    assert_eq!(imported.0, Some(0), "{}", imported.1);
    assert_eq!(
        owner(&["permission", "put", "anna", "--configure", ".*", "--write", ".*"]).0,
        Some(0)
    );
    // The last that everybody knows.
    assert_eq!(owner(&["user", "delete", "guest"]).0, Some(0));
    assert_eq!(broker.fails(&["mailbox", "list"]).0, Some(3));
    assert_eq!(owner(&["mailbox", "declare", "jobs"]).0, Some(0));
    let as_anna = ["mailbox", "list", "--user", "anna", "--password", "secret"];
    assert!(broker.run(&as_anna).contains("jobs"));

    // It is killed: what it left lets nobody in, and the files themselves are administered.
    drop(broker);
    assert!(token.exists());
    assert_eq!(owner(&["user", "put", "bert"]).0, Some(0));
    assert_eq!(owner(&["permission", "put", "bert", "--read", ".*"]).0, Some(0));
    let broker = Broker::start_in(directory.path(), false);
    assert!(
        broker.run(&["mailbox", "list", "--user", "bert", "--password", "secret"]).contains("jobs")
    );
    assert_eq!(owner(&["mailbox", "list", "--user", "nobody"]).0, Some(1));
    let (code, text) = by_owner(&directory.path().join("nowhere"), &["mailbox", "list"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn settled_messages_come_again_also_after_the_broker_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(directory.path(), false);
    broker.run(&["mailbox", "declare", "jobs", "--keep-settled", "1h"]);
    let lines: String = (0..40).map(|n| format!("{n}\n")).collect();
    let file = directory.path().join("lines");
    std::fs::write(&file, &lines).unwrap();
    broker.run(&["push", "jobs", "--lines", "--file", file.to_str().unwrap()]);
    assert_eq!(broker.fails(&["mailbox", "rewind", "jobs"]).0, Some(4));
    assert_eq!(broker.run(&["pull", "jobs", "--all"]), lines);
    // It is killed, not stopped.
    drop(broker);
    let broker = Broker::start_in(directory.path(), false);
    let settled = broker.run(&["browse", "jobs", "--state", "settled", "--count", "100"]);
    assert_eq!(settled.lines().count(), 41, "{settled}");
    let some = ["mailbox", "rewind", "jobs", "--from", "position=11", "--to", "position=14"];
    assert_eq!(broker.run(&some), "put 3 messages back into 'jobs'\n");
    drop(broker);
    let broker = Broker::start_in(directory.path(), false);
    let ready = broker.run(&["browse", "jobs", "--state", "ready", "--json"]);
    let ready: Vec<serde_json::Value> =
        ready.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bodies: Vec<_> = ready.iter().map(|it| (&it["body"], &it["redelivered"])).collect();
    let yes = serde_json::Value::Bool(true);
    assert_eq!(bodies, [(&"10".into(), &yes), (&"11".into(), &yes), (&"12".into(), &yes)]);
    assert_eq!(broker.run(&["pull", "jobs", "--all"]), "10\n11\n12\n");
    let rest = broker.run(&["mailbox", "rewind", "jobs", "--from", "1h"]);
    assert_eq!(rest, "put 40 messages back into 'jobs'\n");
}

#[test]
fn a_message_comes_again_and_again_until_it_is_cancelled() {
    let broker = Broker::start();
    broker.run(&["mailbox", "declare", "jobs"]);
    let kind = ["--kind", "x-delayed-message", "--argument", "x-delayed-type=direct"];
    broker.run(&[&["exchange", "declare", "later"][..], &kind].concat());
    broker.run(&["bind", "later", "jobs", "--key", "jobs"]);
    let push = ["push", "--exchange", "later", "--key", "jobs"];
    broker.run(&[&push[..], &["--every", "200ms", "tick"]].concat());
    broker.run(&[&push[..], &["--cron", "0 6 1 1 *", "a new year"]].concat());
    assert_eq!(broker.fails(&[&push[..], &["--cron", "0 6 1 *", "x"]].concat()).0, Some(2));
    let three = ["pull", "jobs", "--count", "1", "--wait", "20s"];
    for _ in 0..3 {
        assert_eq!(broker.run(&three), "tick\n");
    }
    let list = || -> Vec<serde_json::Value> {
        let list = ["delayed", "list", "--exchange", "later", "--json"];
        serde_json::from_str(&broker.run(&list)).unwrap()
    };
    let rows = list();
    let repeats: Vec<_> = rows.iter().map(|row| &row["repeat"]).collect();
    assert_eq!(repeats, ["every 200 ms", "0 6 1 1 *"]);
    broker.run(&["delayed", "cancel", "--exchange", "later", rows[1]["id"].as_str().unwrap()]);
    assert_eq!(list().len(), 1);
}

#[test]
fn a_partitioned_name_keeps_each_key_in_one_place() {
    let broker = Broker::start();
    let declare = ["mailbox", "declare", "log", "--policy", "stream", "--partitions"];
    broker.run(&[&declare[..], &["4"]].concat());
    let lengths = || -> Vec<u64> {
        let rows: serde_json::Value =
            serde_json::from_str(&broker.run(&["mailbox", "list", "--json"])).unwrap();
        rows.as_array().unwrap().iter().map(|row| row["ready"].as_u64().unwrap()).collect()
    };
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let push = ["push", "--exchange", "log", "--key", key, key];
        broker.run(&push);
        let before = lengths();
        broker.run(&push);
        let grown = lengths().iter().zip(&before).filter(|(after, before)| after > before).count();
        assert_eq!(grown, 1, "{key}");
    }
    let spread = lengths();
    assert_eq!((spread.len(), spread.iter().sum::<u64>()), (4, 16));
    assert!(spread.iter().all(|count| count % 2 == 0), "{spread:?}");
    assert!(spread.iter().filter(|count| **count > 0).count() > 1, "{spread:?}");
    // Again, and more of them.
    broker.run(&[&declare[..], &["5"]].concat());
    assert_eq!(lengths().len(), 5);
}
