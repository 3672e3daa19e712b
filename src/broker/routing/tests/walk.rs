//! From exchange to exchange: circles, alternates, and those that go with their last binding.

use super::*;

#[test]
fn exchanges_in_a_circle_are_each_passed_once() {
    let mut exchanges = exchanges();
    for name in ["x1", "x2", "x3"] {
        exchanges.declare(&declaration(name, "fanout", &[])).expect("declared");
    }
    for (from, to) in
        [("x1", "x2"), ("x2", "x3"), ("x3", "x1"), ("x1", "x1"), ("x3", "a"), ("x2", "a")]
    {
        bind(&mut exchanges, from, to, "");
    }
    for from in ["x1", "x2", "x3"] {
        assert_eq!(route(&mut exchanges, from, ""), "a");
    }
    exchanges.delete("x2", false).expect("deleted");
    assert_eq!(route(&mut exchanges, "x1", ""), "");
    assert_eq!(route(&mut exchanges, "x3", ""), "a");
    exchanges.delete("x1", false).expect("deleted");
    let left: Vec<_> = exchanges.bindings().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].source, "x3");
}

#[test]
fn alternate_takes_what_own_bindings_leave() {
    let mut exchanges = exchanges();
    for (name, alternate) in [("x1", "x2"), ("x2", "x3"), ("x3", "x1"), ("x4", "missing")] {
        let declaration = declaration(name, "direct", &[("alternate-exchange", text(alternate))]);
        exchanges.declare(&declaration).expect("declared");
    }
    bind(&mut exchanges, "x1", "a", "one");
    bind(&mut exchanges, "x2", "b", "two");
    bind(&mut exchanges, "x3", "c", "one");
    assert_eq!(route(&mut exchanges, "x1", "one"), "a");
    assert_eq!(route(&mut exchanges, "x1", "two"), "b");
    assert_eq!(route(&mut exchanges, "x2", "one"), "c");
    assert_eq!(route(&mut exchanges, "x1", "none"), "");
    assert_eq!(route(&mut exchanges, "x4", "any"), "");
    // A binding to an exchange is a binding, even where nothing comes of it.
    bind(&mut exchanges, "x1", "x4", "two");
    assert_eq!(route(&mut exchanges, "x1", "two"), "");
}

#[test]
fn alternate_may_be_the_default_exchange() {
    let mut exchanges = with("x1", "fanout", &[]);
    let declaration = declaration("x2", "direct", &[("alternate-exchange", text(""))]);
    exchanges.declare(&declaration).expect("declared");
    bind(&mut exchanges, "x1", "x2", "");
    bind(&mut exchanges, "x1", "a", "");
    assert_eq!(route(&mut exchanges, "x2", "b"), "b");
    assert_eq!(route(&mut exchanges, "x1", "b"), "a b");
    assert_eq!(route(&mut exchanges, "x1", "a"), "a");
}

#[test]
fn alternate_of_a_policy_yields_to_the_argument() {
    let mut exchanges = with("x1", "direct", &[]);
    let declaration = declaration("x2", "direct", &[("alternate-exchange", text("amq.direct"))]);
    exchanges.declare(&declaration).expect("declared");
    bind(&mut exchanges, "amq.fanout", "a", "");
    let before = exchanges.generation();
    exchanges.set_alternate_by_policy("x1", Some("amq.fanout".into()));
    assert!(exchanges.generation() > before);
    exchanges.set_alternate_by_policy("x2", Some("amq.fanout".into()));
    assert_eq!(route(&mut exchanges, "x1", ""), "a");
    assert_eq!(route(&mut exchanges, "x2", ""), "");
    exchanges.set_alternate_by_policy("x1", None);
    assert_eq!(route(&mut exchanges, "x1", ""), "");
}

#[test]
fn auto_delete_exchanges_go_with_their_last_binding() {
    let mut exchanges = exchanges();
    for name in ["x1", "x2", "x3"] {
        let mut declaration = declaration(name, "fanout", &[]);
        declaration.auto_delete = true;
        exchanges.declare(&declaration).expect("declared");
    }
    bind(&mut exchanges, "x1", "x2", "");
    bind(&mut exchanges, "x2", "a", "one");
    bind(&mut exchanges, "x2", "a", "two");
    // Nothing was ever bound from x3.
    bind(&mut exchanges, "amq.fanout", "x3", "");

    let removed = exchanges.unbind(&binding("x2", "a", "one", &[])).expect("unbound");
    assert_eq!((removed.exchanges.len(), removed.bindings.len()), (0, 1));
    let removed = exchanges.unbind_mailbox(&"a".into());
    let names: Vec<_> = removed.exchanges.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["x2", "x1"]);
    assert_eq!(removed.bindings.len(), 2);
    assert!(exchanges.get("x3").is_some());
    assert_eq!(exchanges.bindings().count(), 1);
}

#[test]
fn long_chain_of_auto_delete_exchanges_goes_at_once() {
    let mut exchanges = exchanges();
    for at in 0..5000 {
        let mut declaration = declaration(&format!("x{at}"), "fanout", &[]);
        declaration.auto_delete = true;
        exchanges.declare(&declaration).expect("declared");
        let to = if at == 0 { "a".to_owned() } else { format!("x{}", at - 1) };
        bind(&mut exchanges, &format!("x{at}"), &to, "");
    }
    assert_eq!(route(&mut exchanges, "x4999", ""), "a");
    let removed = exchanges.unbind_mailbox(&"a".into());
    assert_eq!((removed.exchanges.len(), removed.bindings.len()), (5000, 5000));
    assert_eq!(exchanges.count(), PREDECLARED.len());
}
