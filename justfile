# What a contributor does. `just` alone lists it.

default:
    @just --list

# Format, lints, tests: before every commit.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace

test:
    cargo test --workspace

# Other people's clients against the release binary; NAMES pick folders of interop/.
interop *NAMES:
    interop/run {{NAMES}}

# A fuzz target for so many seconds (`just fuzz amqp_session 60`); needs `cargo install cargo-fuzz`.
fuzz TARGET="amqp_frames" SECONDS="60":
    RUSTC_BOOTSTRAP=1 cargo fuzz run --target-dir target/fuzz {{TARGET}} -- -max_total_time={{SECONDS}} \
        -max_len=4096 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64

# Power loss on a disk that forgets: so many seeds.
crash SEEDS="2000":
    CRASH_SEEDS={{SEEDS}} cargo test --profile ci --test crash -- --nocapture

# kill -9 of the real binary under load: so many rounds. `just interop kill` does it with other people's clients.
kill ROUNDS="30":
    KILL_ROUNDS={{ROUNDS}} cargo test --profile ci --test kill -- --nocapture

# Real brokers on three and five hosts (network namespaces; needs root, ip and nft), cut off and killed: so many rounds.
hosts ROUNDS="12":
    HOST_ROUNDS={{ROUNDS}} cargo test --profile ci --test hosts -- --nocapture

# Hosts, links, disks and power by chance, as values: so many seeds. `SIMULATE_SEED=7 cargo test --lib simulation` repeats one.
simulate SEEDS="1000":
    SIMULATE_SEEDS={{SEEDS}} cargo test --lib simulation -- --nocapture

# Bugs on purpose: the kill harness must catch each.
planted:
    cargo test --profile ci --features planted --test planted -- --nocapture

bench NAME="core":
    cargo bench --bench {{NAME}}

# What streams, keys, groups, delays and links are held to: keys, delayed, queue, many, groups, hosts, large. `BENCH_GB=5 just figures large`.
figures *PARTS:
    cargo bench --bench figures -- {{PARTS}}

# Instructions for each message in the core and the codecs, against the accepted counts.
instructions *FLAGS:
    benches/instructions {{FLAGS}}

# Where the time of a message goes in the whole broker. Wants perf, strace and valgrind.
profile *PATHS:
    cargo build --release
    benches/profile {{PATHS}}

# The same load on Pillarbox, RabbitMQ and NATS; LOAD is the program `amqpload`.
compare LOAD *SCENARIOS:
    interop/compare --load {{LOAD}} {{SCENARIOS}}
