//! The task with a real broker, and a test in the place of the committer and the connections.

use std::sync::mpsc::Receiver;
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

use super::*;
use crate::broker::{
    ChannelId, DeclareMailbox, Message, NEUTRAL, Name, Open, Properties, Publish, Recovered, Reply,
    Request, Settings, Source, Table, Ticket,
};
use crate::server::intake::{Lane, lanes};
use crate::server::outbox::{EventQueue, Heard};

const ME: ConnectionId = ConnectionId(1);

struct House {
    lane: Lane,
    queue: Arc<EventQueue>,
    work: Receiver<Work>,
    notices: mpsc::UnboundedSender<Notice>,
    task: JoinHandle<()>,
}

impl House {
    async fn start(undurable_bytes_max: usize) -> Self {
        let clock = Clock::start();
        let mut effects = Vec::new();
        let recovered = Recovered::default();
        let broker = Broker::open(recovered, Settings::default(), clock.now(), &mut effects);
        let (notices, notices_intake) = mpsc::unbounded_channel();
        let (committer, work) = std::sync::mpsc::channel();
        let (fetches, _) = std::sync::mpsc::channel();
        let (requests, intake) = lanes();
        let task = BrokerTask::new(Parts {
            broker,
            effects,
            clock,
            intake,
            notices: notices_intake,
            committer,
            fetches,
            undurable_bytes_max,
            stopping: Arc::default(),
            growth: Growth::default(),
        });
        let task = tokio::spawn(task.run());
        let queue = Arc::new(EventQueue::default());
        let lane = Lane::join(requests, ME, queue.clone()).await.unwrap();
        Self { lane, queue, work, notices, task }
    }

    /// A house whose connection is open and whose mailbox `q` is durable.
    async fn furnished(undurable_bytes_max: usize) -> Self {
        let mut house = Self::start(undurable_bytes_max).await;
        house.ask([opening(), declare("q")]).await;
        house.commit_all().await;
        assert_eq!(house.heard(), ["done", "declared q"]);
        house
    }

    async fn ask(&mut self, commands: impl IntoIterator<Item = Command>) {
        let mut commands: Vec<_> = commands.into_iter().collect();
        let sent = std::future::poll_fn(|context| self.lane.poll_send(&mut commands, context));
        sent.await.unwrap();
        settle().await;
    }

    /// Takes a job, if there is one.
    async fn job(&mut self) -> Option<Job> {
        settle().await;
        match self.work.try_recv().ok()? {
            Work::Commit(job) => Some(job),
            Work::Mend { .. } => panic!("the broker task reads nothing"),
        }
    }

    async fn committed(&mut self, job: Job) {
        let _ = self.notices.send(Notice::Committed { epoch: job.epoch, spare: Vec::new() });
        settle().await;
    }

    async fn commit_all(&mut self) {
        while let Some(job) = self.job().await {
            self.committed(job).await;
        }
    }

    fn heard(&self) -> Vec<String> {
        let mut events = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        let _ = self.queue.poll_take(true, &mut events, &mut context);
        let text = |event| match event {
            Event::Reply { result: Ok(Reply::Done | Reply::Opened), .. } => "done".into(),
            Event::Reply { result: Ok(Reply::Declared { name, .. }), .. } => {
                format!("declared {name}")
            }
            Event::Confirmed { tag, taken: true, .. } => format!("confirmed {tag}"),
            Event::ForceClose(reason) => reason,
            other => panic!("unexpected {other:?}"),
        };
        events.into_iter().map(text).collect()
    }
}

/// Lets the task do what it can, without letting time pass.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn opening() -> Command {
    let open = Open {
        user: Name::from("guest"),
        vhost: Name::from("/"),
        protocol: "test",
        peer: String::new(),
        local: String::new(),
        client_name: None,
        client_properties: Table::new(),
        mechanism: "PLAIN",
        strict_channels: false,
        cancel_notify: false,
    };
    Command::Open(Box::new(open), Ticket(0))
}

fn declare(name: &str) -> Command {
    let declare = DeclareMailbox {
        name: name.into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        generated: false,
    };
    Command::Request(ChannelId(1), Ticket(1), Box::new(Request::DeclareMailbox(declare)))
}

fn publish(key: &str, tag: Option<u64>, size: usize) -> Command {
    let message = Message::build(&Source {
        exchange: &Name::from(""),
        key: key.as_bytes(),
        properties: &Properties::default(),
        body: &Bytes::from(vec![0; size]),
        form: &NEUTRAL,
        persistent: true,
        accepted: Time(1),
    });
    Command::Publish(Publish {
        channel: ChannelId(1),
        message: Arc::new(message),
        more_keys: None,
        confirm: tag,
        mandatory: false,
        home: false,
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_promised_before_it_is_durable() {
    let mut house = House::furnished(usize::MAX).await;
    house.ask([publish("q", Some(1), 10)]).await;
    let job = house.job().await.expect("the message goes to the committer at once");
    assert!(matches!(&job.writes[..], [Write::Append(_)]));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.heard(), [""; 0]);
    house.committed(job).await;
    assert_eq!(house.heard(), ["confirmed 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_commit_is_the_next_batch() {
    let mut house = House::furnished(usize::MAX).await;
    house.ask([publish("q", Some(1), 10)]).await;
    let first = house.job().await.unwrap();
    house.ask([publish("q", Some(2), 10)]).await;
    house.ask([publish("q", Some(3), 10)]).await;
    assert!(house.job().await.is_none());
    house.committed(first).await;
    assert_eq!(house.heard(), ["confirmed 1"]);
    let second = house.job().await.unwrap();
    assert_eq!(second.writes.len(), 2);
    house.committed(second).await;
    assert_eq!(house.heard(), ["confirmed 2", "confirmed 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_without_a_write_does_not_overtake() {
    let mut house = House::furnished(usize::MAX).await;
    // No mailbox takes it, so nothing is written for it.
    house.ask([publish("nowhere", Some(1), 10)]).await;
    assert_eq!(house.heard(), ["confirmed 1"]);
    house.ask([publish("q", Some(2), 10), publish("nowhere", Some(3), 10)]).await;
    let job = house.job().await.unwrap();
    house.ask([publish("nowhere", Some(4), 10)]).await;
    assert_eq!(house.heard(), [""; 0]);
    house.committed(job).await;
    assert_eq!(house.heard(), ["confirmed 2", "confirmed 3", "confirmed 4"]);
}

#[tokio::test(start_paused = true)]
async fn writes_that_nobody_waits_for_ride_a_little() {
    let mut house = House::furnished(usize::MAX).await;
    house.ask([publish("q", None, 10)]).await;
    assert!(house.job().await.is_none());
    sleep(Duration::from_millis(RIDE_MS_MAX + 1)).await;
    assert_eq!(house.job().await.unwrap().writes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn publishers_wait_while_too_much_is_not_durable() {
    let mut house = House::furnished(1000).await;
    house.ask([publish("q", Some(1), 2000)]).await;
    let job = house.job().await.unwrap();
    house.ask([publish("nowhere", Some(2), 10)]).await;
    sleep(Duration::from_secs(1)).await;
    house.committed(job).await;
    settle().await;
    assert_eq!(house.heard(), ["confirmed 1", "confirmed 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_does_not_wait_for_the_committer() {
    let mut house = House::furnished(usize::MAX).await;
    house.ask([publish("q", Some(1), 10)]).await;
    let first = house.job().await.unwrap();
    house.ask([publish("q", Some(2), COMMIT_BYTES_MAX)]).await;
    let second = house.job().await.expect("it goes although the first is not done");
    assert!(first.epoch < second.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_stop_makes_everything_durable_and_closes_the_store() {
    let mut house = House::furnished(usize::MAX).await;
    let _ = house.notices.send(Notice::GoingDown("broker shutting down".into()));
    settle().await;
    assert_eq!(house.heard(), ["broker shutting down"]);
    house.ask([publish("q", None, 10)]).await;
    let (answer, closed) = oneshot::channel();
    let _ = house.notices.send(Notice::Stop(answer));
    let job = house.job().await.unwrap();
    assert!(job.writes.iter().any(|it| matches!(it, Write::Append(_))));
    house.committed(job).await;
    assert!(
        house.work.try_recv().is_err_and(|it| it == std::sync::mpsc::TryRecvError::Disconnected)
    );
    let _ = house.notices.send(Notice::StoreClosed(Ok(())));
    assert!(closed.await.unwrap().is_ok());
    house.task.await.unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let heard = house.queue.poll_take(true, &mut VecDeque::new(), &mut context);
    assert!(matches!(heard, std::task::Poll::Ready(Heard::Severed)));
}
