use std::path::Path;

use rstest::rstest;

use super::sections::Config;
use super::value::{Address, ByteSize, Period, Setting, Share};

fn from_file(text: &str) -> Result<Config, String> {
    let mut config = Config::default();
    config.add_file(Path::new("pillarbox.toml"), text).map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn flags_win_over_environment_and_environment_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pillarbox.toml");
    let text = "[limits]\nconnections_max = 1\nlogin_timeout = \"1s\"\nwrite_stall = 1\n";
    std::fs::write(&file, text).unwrap();
    let variable = |key: &str, value: &str| (format!("PILLARBOX__{key}"), value.to_owned());
    let config = Config::load(
        Some(&file),
        [
            ("HOME".to_owned(), "/".to_owned()),
            variable("LIMITS__LOGIN_TIMEOUT", "2s"),
            variable("LISTEN__AMQP", "none"),
        ],
        [("amqp-listen", "listen.amqp", "[::1]:0".to_owned())],
    )
    .unwrap();
    assert_eq!(config.limits.connections_max, 1);
    assert_eq!(config.limits.login_timeout, Period::seconds(2));
    assert_eq!(config.limits.write_stall, Period::seconds(1));
    assert_eq!(config.listen.amqp, Address::At("[::1]:0".parse().unwrap()));
}

#[rstest]
#[case(
    "[limits]\nconections_max = 1",
    "pillarbox.toml, line 2: there is no setting 'limits.conections_max'; did you mean 'limits.connections_max'?"
)]
#[case(
    "\n[store]\nframe_max = 1",
    "pillarbox.toml, line 3: there is no setting 'store.frame_max'; did you mean 'amqp.frame_max'?"
)]
#[case("qqqqqqqqqqqqq = 1", "pillarbox.toml, line 1: there is no setting 'qqqqqqqqqqqqq'")]
#[case("[nothing]", "pillarbox.toml, line 1: there is no setting 'nothing'")]
#[case(
    "[amqp]\nheartbeat = \"often\"",
    "pillarbox.toml, line 2: amqp.heartbeat = \"often\": the value is not a time such as 30, \"30s\", \"5min\" or \"250ms\""
)]
#[case(
    "[amqp]\nframe_max = -1",
    "pillarbox.toml, line 2: amqp.frame_max = \"-1\": the value is not a whole number from 0 to 4294967295"
)]
#[case(
    "[listen]\namqp = [1]",
    "pillarbox.toml, line 2: listen.amqp must be a text, a whole number or true or false"
)]
fn a_wrong_file_says_where_and_what(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(from_file(text).unwrap_err(), expected);
}

#[test]
fn broken_toml_shows_the_line() {
    let error = from_file("[limits]\nconnections_max 1").unwrap_err();
    assert!(error.contains("pillarbox.toml: TOML parse error at line 2"), "{error}");
}

#[test]
fn an_unknown_variable_is_named() {
    let variable = ("PILLARBOX__LIMITS__CONNECTIONS".to_owned(), "1".to_owned());
    let error = Config::load(None, [variable], []).unwrap_err().to_string();
    assert_eq!(
        error,
        "PILLARBOX__LIMITS__CONNECTIONS: there is no setting 'limits.connections'; did you mean 'limits.connections_max'?"
    );
}

#[rstest]
#[case("4096", 4096, "4KiB")]
#[case("64MiB", 64 << 20, "64MiB")]
#[case("64 mib", 64 << 20, "64MiB")]
#[case("1GB", 1_000_000_000, "1GB")]
#[case("1_000", 1000, "1kB")]
#[case("0", 0, "0")]
fn sizes_have_units(#[case] text: &str, #[case] bytes: u64, #[case] shown: &str) {
    assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)));
    assert_eq!(ByteSize(bytes).show(), shown);
}

#[rstest]
#[case("30", 30_000, "30s")]
#[case("30s", 30_000, "30s")]
#[case("5min", 300_000, "5min")]
#[case("250ms", 250, "250ms")]
#[case("2h", 7_200_000, "2h")]
fn periods_have_units(#[case] text: &str, #[case] millis: u64, #[case] shown: &str) {
    let period = Period::parse(text).unwrap();
    assert_eq!((period.millis(), period.show().as_str()), (millis, shown));
}

#[rstest]
#[case("")]
#[case("MiB")]
#[case("-1")]
#[case("1.5GiB")]
#[case("64 parsecs")]
#[case("99999999999999TiB")]
fn what_is_no_size_is_refused(#[case] text: &str) {
    assert!(ByteSize::parse(text).is_err());
}

#[rstest]
#[case("60%", 600)]
#[case("123B", 123)]
fn shares_are_of_a_whole(#[case] text: &str, #[case] bytes: u64) {
    assert_eq!(Share::parse(text).unwrap().of(1000), bytes);
}

#[rstest]
#[case("none", false)]
#[case("127.0.0.1:0", false)]
#[case("localhost:5672", false)]
#[case("[::1]:5672", false)]
#[case("[::ffff:127.0.0.1]:5672", false)]
#[case("0.0.0.0:5672", true)]
#[case("[::]:5672", true)]
#[case("10.0.0.1:5672", true)]
fn addresses_beyond_loopback_are_open(#[case] text: &str, #[case] open: bool) {
    assert_eq!(Address::parse(text).unwrap().is_open(), open);
}

#[test]
fn a_secret_is_not_shown() {
    let config = from_file("[login]\npassword = \"hunter2\"").unwrap();
    assert_eq!(config.login.password.reveal(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// `UPDATE=1 cargo test` writes the page anew.
#[test]
fn the_documents_show_every_setting() {
    const START: &str = "<!-- settings: written by a test, UPDATE=1 cargo test -->\n";
    const END: &str = "<!-- end of settings -->\n";
    let mut table = String::from(START);
    for section in Config::SECTIONS {
        table += &format!("\n### `[{}]`\n\n{}\n\n", section.name, section.about.trim());
        table += "| Setting | Default | Meaning |\n|---|---|---|\n";
        for key in section.keys {
            table +=
                &format!("| `{}` | `{}` | {} |\n", key.name, (key.default)(), key.about.trim());
        }
    }
    table += "\n";
    table += END;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(START).expect("the page has a place for the settings");
    let (_, after) = rest.split_once(END).expect("the place for the settings ends");
    let expected = format!("{before}{table}{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, expected).unwrap();
    } else {
        assert!(text == expected, "docs/configuration.md is old: UPDATE=1 cargo test");
    }
}
