//! Power loss at a random operation, over both files, in many ways, and again while recovering.
//!
//! `CRASH_SEEDS=2000 cargo test --test crash`; `CRASH_SEED=17` runs one.

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/model.rs"]
mod model;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/workload.rs"]
mod workload;

use std::cell::Cell;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use pillarbox::broker::{Recovered, Time};
use pillarbox::store::{Options, Store};

use disk::{ForgettingDisk, Survival};
use model::{Model, RAW};
use random::Random;
use workload::Workload;

fn options(random: &mut Random) -> Options {
    Options {
        journal_cache: 2 << 20,
        home_cache: 2 << 20,
        soft_cap: 64 << 10,
        hard_cap: 256 << 10,
        two_phase: random.chance(3),
        background: false,
        reserve: 0,
    }
}

fn open(disk: &ForgettingDisk, random: &mut Random) -> Result<(Store, Recovered), String> {
    Store::open_in(Arc::new(disk.clone()), &[&RAW], options(random)).map_err(|it| it.to_string())
}

/// What the disk may hold: everything confirmed, or that and the commit under way.
struct Expected {
    sure: Model,
    maybe: Option<Model>,
}

/// Works until the power goes; returns what may be on the disk.
fn work(
    disk: &ForgettingDisk,
    store: Store,
    workload: &mut Workload,
    mut model: Model,
    random: &mut Random,
    steps: u64,
) -> Result<Expected, String> {
    let mut store = Some(store);
    for step in 0..steps {
        let Some(open_store) = &mut store else { break };
        match random.below(30) {
            0..2 if disk.crashed() => break,
            0..2 => match open_store.home() {
                Ok(()) => {}
                Err(_) if disk.crashed() => break,
                Err(error) => return Err(format!("homing fails: {error}")),
            },
            2 => {
                let closing = store.take().ok_or("a store")?;
                let clean = random.chance(2);
                let closed = if clean {
                    closing.close()
                } else {
                    drop(closing);
                    Ok(())
                };
                model.restart();
                if disk.crashed() {
                    break;
                }
                closed.map_err(|error| format!("closing fails: {error}"))?;
                let (again, recovered) = match open(disk, random) {
                    Ok(opened) => opened,
                    Err(_) if disk.crashed() => break,
                    Err(error) => return Err(format!("opening again fails: {error}")),
                };
                if recovered.clean != clean {
                    return Err(format!("clean is {} and not {clean}", recovered.clean));
                }
                model.compare(&recovered)?;
                workload.restarted(&recovered);
                store = Some(again);
            }
            3 => {
                let read = model.compare_bodies(&open_store.reader());
                if disk.crashed() {
                    break;
                }
                read?;
            }
            _ => {
                let writes = workload.commit(&model);
                let mut after = model.clone();
                after.apply(&writes);
                match open_store.commit(&writes, Time(step)) {
                    Ok(()) => model = after,
                    Err(_) if disk.crashed() => {
                        return Ok(Expected { sure: model, maybe: Some(after) });
                    }
                    Err(error) => return Err(format!("a commit fails: {error}")),
                }
            }
        }
    }
    Ok(Expected { sure: model, maybe: None })
}

/// Opens what a crash left, and crashes again while at it.
fn recover(
    mut disk: ForgettingDisk,
    expected: &mut Expected,
    random: &mut Random,
) -> Result<(ForgettingDisk, Store, Recovered, Model), String> {
    expected.sure.restart();
    if let Some(maybe) = &mut expected.maybe {
        maybe.restart();
    }
    for _ in 0..3 {
        if random.chance(2) {
            break;
        }
        disk.crash_after(random.below(40));
        let opened = open(&disk, random);
        if !disk.crashed() {
            opened.map_err(|error| format!("the image does not open: {error}"))?;
            disk.crash_after(0);
        }
        disk = disk.image(Survival::ALL[random.below(6) as usize], random);
    }
    let (store, recovered) =
        open(&disk, random).map_err(|error| format!("the image does not open: {error}"))?;
    if !store.damage().is_empty() {
        return Err(format!("damage after a crash: {:?}", store.damage()));
    }
    let model = match (expected.sure.compare(&recovered), &expected.maybe) {
        (Ok(()), _) => expected.sure.clone(),
        (Err(error), None) => return Err(error),
        (Err(error), Some(maybe)) => {
            maybe.compare(&recovered).map_err(|other| format!("{error}; {other}"))?;
            maybe.clone()
        }
    };
    model.compare_bodies(&store.reader())?;
    Ok((disk, store, recovered, model))
}

fn seed(seed: u64, lying: bool) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut disk = ForgettingDisk::new();
    if lying {
        disk.lie(Random::new(seed + 1));
    }
    let reach = if random.chance(4) { 60 } else { 1500 };
    disk.crash_after(1 + random.below(reach));
    let mut workload = Workload::new(Random::new(seed + 2));
    let mut expected = Expected { sure: Model::default(), maybe: None };
    match open(&disk, &mut random) {
        Ok((store, _)) => {
            expected = work(&disk, store, &mut workload, Model::default(), &mut random, 100)?;
        }
        Err(_) if disk.crashed() => {}
        Err(error) => return Err(format!("a new store does not open: {error}")),
    }
    // A life after the crash: twice, so that what the first recovery left is recovered too.
    for _ in 0..2 {
        let survival = Survival::ALL[random.below(6) as usize];
        let image = disk.image(survival, &mut random);
        let (after, store, recovered, model) = recover(image, &mut expected, &mut random)
            .map_err(|error| format!("{survival:?}: {error}"))?;
        disk = after;
        workload.restarted(&recovered);
        disk.crash_after(1 + random.below(400));
        expected = work(&disk, store, &mut workload, model, &mut random, 30)?;
    }
    Ok(())
}

fn seeds(default: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("CRASH_SEED") {
        return one..one + 1;
    }
    0..number("CRASH_SEEDS").unwrap_or(default)
}

/// Runs every seed, on all cores; returns what went wrong, in order.
fn run_all(seeds: Range<u64>, lying: bool) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds.end {
                break;
            }
            let run = std::panic::catch_unwind(|| seed(number, lying));
            let error = match run {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(panic) => format!("panic: {:?}", panic.downcast_ref::<String>()),
            };
            failed.lock().expect("no thread panics").push((number, error));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| if lying { quietly(work) } else { work() });
        }
    });
    let mut failed = failed.into_inner().expect("no thread panics");
    failed.sort();
    failed.into_iter().map(|(number, error)| format!("CRASH_SEED={number}: {error}")).collect()
}

/// Files that lost what was synced make redb panic, which the store takes for damage: nobody needs to read of it.
fn quietly(work: impl FnOnce()) {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    work();
    QUIET.set(false);
}

#[test]
fn nothing_confirmed_is_lost() {
    let failed = run_all(seeds(25), false);
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// The test can fail: a disk that says it synced and did not is found out.
#[test]
fn lying_disk_is_found_out() {
    let failed = run_all(0..40, true);
    // A panic is no finding of the test's own.
    let caught = failed.iter().filter(|it| !it.contains(": panic: ")).count();
    assert!(caught > 5, "only {caught} of 40");
}
