//! Confirms that wait until the message is where its mailbox lives.

use std::sync::Arc;

use super::super::house::{ONE, TWO};
use super::leave::forget;
use super::*;

impl Host {
    fn publish_home(&mut self, post: Post, tag: u64) {
        self.house.publish(self.client, post.home(tag));
    }

    fn told(&mut self) -> Vec<String> {
        self.house.told(self.client)
    }
}

fn two() -> Hosts {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it
}

/// Nothing is remembered of confirms.
fn nothing_waits(it: &Hosts) {
    for host in &it.hosts {
        assert_eq!(host.house.broker.pledged_copies(), (0, 0), "{}", host.name);
    }
    it.check();
}

#[test]
fn the_confirm_comes_once_the_other_host_has_the_message_and_holds_no_other_up() {
    let mut it = two();
    it.hosts[A].declare("here");
    it.hosts[A].publish_home(Post::to("work", "1"), 1);
    let client = it.hosts[A].client;
    it.hosts[A].house.publish(client, Post::to("work", "2").confirm(2));
    it.hosts[A].publish_home(Post::to("here", "3"), 3);
    it.hosts[A].publish_home(Post::to("nowhere", "4"), 4);
    it.hosts[A].publish_home(Post::to("nowhere", "5").mandatory(), 5);
    it.hosts[A].house.sync();
    let said = ["confirmed 2", "confirmed 3", "confirmed 4", "returned 5", "confirmed 5"];
    assert_eq!(it.hosts[A].told(), said);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["confirmed 1"]);
    assert_eq!(it.hosts[B].empty("work"), ["1", "2"]);
    nothing_waits(&it);
}

#[test]
fn without_a_confirm_it_means_nothing() {
    let mut it = two();
    let client = it.hosts[A].client;
    let mut post = Post::to("work", "1").home(0);
    post.confirm = None;
    it.hosts[A].house.publish(client, post);
    it.settle();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    nothing_waits(&it);
}

#[test]
fn a_link_that_breaks_and_comes_back_is_waited_for() {
    let mut it = two();
    it.cut_all(B);
    it.hosts[A].publish_home(Post::to("work", "1"), 1);
    it.link(A, B);
    let at = it.links.iter().position(|it| it.from == A).expect("a link");
    // It arrives, and the answer is lost.
    it.carry(at);
    it.cut(A, B);
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["confirmed 1"]);
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    nothing_waits(&it);
}

#[test]
fn what_the_target_lost_before_its_disk_had_it_is_not_confirmed() {
    let mut it = two();
    it.hosts[A].publish_home(Post::to("work", "1"), 1);
    it.hosts[B].house.fast_disk = false;
    it.settle();
    it.cut_all(B);
    it.hosts[B].crash();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.hosts[B].house.fast_disk = true;
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["confirmed 1"]);
    // Whatever becomes of the origin now.
    it.cut_all(A);
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
}

#[test]
fn a_message_for_several_hosts_waits_for_all() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    for (at, name) in [(A, "qa"), (B, "qb"), (C, "qc")] {
        let client = it.hosts[at].client;
        it.hosts[at].declare(name);
        it.hosts[at].house.bind(client, "amq.fanout", name, "");
    }
    it.settle();
    it.cut(A, C);
    it.hosts[A].publish_home(Post::by("amq.fanout", "", "1"), 1);
    it.hosts[A].publish_home(Post::to("qb", "2").cc(&["qc"]), 2);
    it.settle();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.link(A, C);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["confirmed 1", "confirmed 2"]);
    for (at, name) in [(B, "qb"), (C, "qc")] {
        assert_eq!(it.hosts[at].empty(name), ["1", "2"]);
    }
    nothing_waits(&it);
}

#[test]
fn a_message_that_leaves_otherwise_is_refused() {
    let mut it = two();
    it.too_large.insert("large".into());
    it.hosts[A].publish_home(Post::to("work", "large"), 1);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["refused 1"], "the other host never takes it");
    it.cut_all(B);
    it.hosts[A].publish_home(Post::to("work", "old").expiration(50), 2);
    it.hosts[A].house.wait(100);
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["refused 2"], "too old");
    it.hosts[A].publish_home(Post::to("work", "purged"), 3);
    it.hosts[A].ask(purge("peer/b")).expect("an administrator may");
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["refused 3"], "purged");
    it.hosts[A].publish_home(Post::to("work", "dropped"), 4);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Dropped), Ok(1));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["refused 4"], "dropped");
    nothing_waits(&it);
}

#[test]
fn what_is_too_old_in_the_store_alone_is_refused_as_well() {
    let mut it = two();
    it.cut_all(B);
    for tag in 1..=60 {
        it.hosts[A].publish_home(Post::to("work", "old").expiration(1000), tag);
    }
    it.hosts[A].house.sync();
    it.hosts[A].house.wait(2000);
    it.hosts[A].house.sync();
    let mut told = it.hosts[A].told();
    told.sort();
    let mut expected: Vec<_> = (1..=60).map(|tag| format!("refused {tag}")).collect();
    expected.sort();
    assert_eq!(told, expected);
    nothing_waits(&it);
}

#[test]
fn a_message_that_is_sent_elsewhere_is_waited_for_there() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[B].declare("work");
    it.settle();
    it.cut_all(B);
    it.hosts[A].publish_home(Post::to("work", "1"), 1);
    assert_eq!(forget(&mut it.hosts[C], "b", Fate::Absent), Ok(0));
    it.hosts[C].declare("work");
    it.cut(A, C);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::SentTo("c".into())), Ok(1));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.link(A, C);
    it.settle();
    assert_eq!(it.hosts[A].told(), ["confirmed 1"]);
    assert_eq!(it.hosts[C].empty("work"), ["1"]);
    nothing_waits(&it);
}

#[test]
fn a_message_that_comes_to_rest_here_after_all_is_confirmed() {
    let mut it = two();
    it.cut_all(B);
    it.hosts[A].publish_home(Post::to("work", "1"), 1);
    // Its mailbox is nowhere: it stays. Then there is one here.
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Routed), Ok(1));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.hosts[A].declare("work");
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Routed), Ok(1));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["confirmed 1"]);
    assert_eq!(it.hosts[A].empty("work"), ["1"]);
    nothing_waits(&it);
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let mut it = two();
    it.cut_all(B);
    let other = it.hosts[A].house.connect();
    for channel in [ONE, TWO] {
        let mut post = Post::to("work", "1").home(1);
        post.channel = channel;
        it.hosts[A].house.publish(other, post);
    }
    assert_eq!(it.hosts[A].house.broker.pledged_copies(), (2, 2));
    it.hosts[A].house.close_channel(other, ONE);
    assert_eq!(it.hosts[A].house.broker.pledged_copies(), (1, 1));
    it.hosts[A].house.close(other);
    nothing_waits(&it);
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "1"]);
}

fn batch(host: &Host, posts: &[Post]) -> PublishBatch {
    let message = |post: &Post| Arc::into_inner(post.clone().publish(host.house.now).message);
    let messages = posts.iter().map(|it| message(it).expect("its only owner")).collect();
    PublishBatch { channel: ONE, messages, confirm: Some(7), mandatory: true, home: true }
}

#[test]
fn a_batch_is_answered_when_all_of_it_is_home_or_lost() {
    let mut it = two();
    it.too_large.insert("large".into());
    it.hosts[A].declare("here");
    let names = [("work", "1"), ("work", "large"), ("here", "2"), ("nowhere", "3"), ("work", "4")];
    let posts: Vec<_> = names.iter().map(|(name, body)| Post::to(name, body)).collect();
    let (client, batch) = (it.hosts[A].client, batch(&it.hosts[A], &posts));
    it.hosts[A].house.apply(client, Command::PublishBatch(batch));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), Vec::<String>::new());
    it.settle();
    let said = r#"batch 7: 3 taken, missed ["1 Lost", "3 Unroutable"]"#;
    assert_eq!(it.hosts[A].told(), [said]);
    assert_eq!(it.hosts[B].empty("work"), ["1", "4"]);
    nothing_waits(&it);
}

#[test]
fn a_connection_cannot_make_the_broker_wait_for_any_number() {
    let mut it = two();
    it.cut_all(B);
    let (client, posts) = (it.hosts[A].client, vec![Post::to("work", "1"); 65_536]);
    let many = batch(&it.hosts[A], &posts);
    it.hosts[A].house.apply(client, Command::PublishBatch(many));
    it.hosts[A].publish_home(Post::to("work", "one too many"), 1);
    assert_eq!(it.hosts[A].view("b").messages, 65_536);
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["refused 1"]);
    it.hosts[A].house.publish(client, Post::to("work", "2").confirm(2));
    it.hosts[A].house.sync();
    assert_eq!(it.hosts[A].told(), ["confirmed 2"], "others are as ever");
}

#[test]
fn a_transaction_is_durable_here_and_waits_for_nobody() {
    let mut it = two();
    let publish = Post::to("work", "1").home(1).publish(it.hosts[A].house.now);
    let publish = Publish { confirm: None, ..publish };
    it.hosts[A].ask(Request::Commit(vec![Command::Publish(publish)])).expect("committed");
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    nothing_waits(&it);
}
