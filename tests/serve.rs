//! The `pillarbox` command from outside: what it prints, its exit codes, and one data directory for one broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rstest::rstest;

fn pillarbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    // Brokers of tests run beside each other.
    for listener in ["STOMP", "HTTP", "NATIVE", "STOMP_TLS", "HTTP_TLS", "NATIVE_TLS"] {
        command.env(format!("PILLARBOX__LISTEN__{listener}"), "none");
    }
    command.args(arguments);
    command
}

struct Broker {
    child: Child,
    out: BufReader<ChildStdout>,
    amqp: String,
}

impl Broker {
    fn start(directory: &Path) -> Self {
        let arguments = ["serve", "--amqp-listen", "127.0.0.1:0", "--data-dir"];
        let mut child = pillarbox(&arguments)
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let amqp = line.trim_end().strip_prefix("listening amqp ").unwrap().to_owned();
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, out, amqp }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        self.child.wait().unwrap().code()
    }
}

fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[rstest]
#[case("TERM")]
#[case("INT")]
fn it_listens_says_so_and_stops_when_told(#[case] signal: &str) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path());
    let mut client = TcpStream::connect(&broker.amqp).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"AMQP\x00\x00\x09\x01");
    broker.signal(signal);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_data_directory_belongs_to_one_broker() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path());
    let path = directory.path().to_str().unwrap();
    let second = pillarbox(&["serve", "--amqp-listen", "127.0.0.1:0", "--data-dir", path]);
    let (code, text) = failure(&{ second }.output().unwrap());
    assert_eq!(code, Some(1));
    let expected = format!("pillarbox: another broker is running on this data directory: {path}\n");
    assert_eq!(text, expected);
    broker.signal("KILL");
    assert_eq!(broker.wait(), None);
    let third = Broker::start(directory.path());
    third.signal("TERM");
    assert_eq!(third.wait(), Some(0));
    let checked = pillarbox(&["check", "--data-dir", path]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.ends_with("everything is in order\n"), "{text}");
    assert_eq!(checked.status.code(), Some(0));
    let compacted = pillarbox(&["check", "--compact", "--data-dir", path]).output().unwrap();
    let text = String::from_utf8_lossy(&compacted.stdout);
    assert!(text.contains("bytes on the disk before"), "{text}");
    assert_eq!(compacted.status.code(), Some(0));
    let fourth = Broker::start(directory.path());
    fourth.signal("TERM");
    assert_eq!(fourth.wait(), Some(0));
}

#[rstest]
#[case(&[], 2, "Usage: pillarbox")]
#[case(&["surve"], 2, "a similar subcommand exists: 'serve'")]
#[case(&["serve", "--amqp-listen", "5672"], 2, "--amqp-listen: listen.amqp = \"5672\": the value is not ADDR:PORT")]
#[case(&["serve", "--config", "/no/such/file"], 2, "cannot read /no/such/file")]
#[case(&["serve", "--log", "loud=very"], 2, "'loud=very' is not a log level")]
#[case(&["serve", "--amqp-listen", "0.0.0.0:0"], 1, "set login.user and login.password")]
#[case(&["serve", "--peer-listen", "0.0.0.0:0"], 1, "give all hosts one file with peers.secret_file")]
#[case(&["serve", "--peer", "127.0.0.1:1", "--peer", "b:2"], 1, "peers.hosts = \"b:2\" leaves this machine")]
#[case(&["serve", "--peer", "b"], 2, "--peer: peers.hosts = \"b\": the value is not HOST:PORT")]
#[case(&["serve", "--data-dir", "/proc/no/such"], 1, "cannot open the data directory /proc/no/such")]
#[case(&["check", "--data-dir", "/no/such/directory"], 2, "/no/such/directory is not a directory")]
fn a_mistake_is_answered_with_what_to_do(
    #[case] arguments: &[&str],
    #[case] code: i32,
    #[case] text: &str,
) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = pillarbox(arguments);
    let output = command.current_dir(directory.path()).output().unwrap();
    let (exit, said) = failure(&output);
    assert!(said.contains(text), "{said}");
    assert_eq!(exit, Some(code), "{said}");
}

#[test]
fn beyond_loopback_needs_a_user_who_then_takes_the_place_of_guest() {
    let directory = tempfile::tempdir().unwrap();
    let first_line = |password: Option<&str>| {
        let mut command = pillarbox(&["serve", "--amqp-listen", "0.0.0.0:0"]);
        if let Some(password) = password {
            command.env("PILLARBOX__LOGIN__USER", "anna");
            command.env("PILLARBOX__LOGIN__PASSWORD", password);
        }
        command.current_dir(directory.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).stderr(Stdio::null()).status();
        let _ = child.wait();
        line
    };
    assert_eq!(first_line(None), "");
    assert_eq!(first_line(Some("guest")), "");
    assert!(first_line(Some("s3cret")).starts_with("listening amqp 0.0.0.0:"));
    // Known from now on.
    assert!(first_line(None).starts_with("listening amqp 0.0.0.0:"));
}

/// A client would see it in the handshake; here it is enough that the broker lives and says so.
#[test]
fn hangup_reads_the_certificate_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let renew = || {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(at("server.pem"), cert.pem()).unwrap();
        std::fs::write(at("server.key"), signing_key.serialize_pem()).unwrap();
    };
    renew();
    let mut child =
        pillarbox(&["serve", "--amqp-listen", "none", "--amqp-tls-listen", "127.0.0.1:0"])
            .args(["--tls-certificate".as_ref(), at("server.pem").as_os_str()])
            .args(["--tls-key".as_ref(), at("server.key").as_os_str()])
            .args(["--data-dir".as_ref(), at("data").as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening amqp-tls 127.0.0.1:"), "{line}");
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = child.id().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    renew();
    signal("HUP");
    assert!(log.any(|line| line.contains("certificate read again")));
    std::fs::write(at("server.key"), "").unwrap();
    signal("HUP");
    assert!(log.any(|line| line.contains("the old certificate stays: there is no private key in")));
    signal("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
