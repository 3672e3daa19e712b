use bytes::BytesMut;
use pillarbox_amqp::{
    Method, Properties, PropertiesRef, decode_ack, decode_content_header, decode_publish,
    decode_table, is_publish, next_frame, table_entries,
};
use proptest::prelude::*;

use crate::bytes_of::payload_of;
use crate::generate::{METHODS, Text, filling, properties, put_table, same, table};

/// A content header payload of class basic around a property list.
pub(crate) fn header_payload(raw: &[u8]) -> Vec<u8> {
    [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], raw].concat()
}

fn encoded(properties: &Properties) -> BytesMut {
    let mut out = BytesMut::new();
    properties.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn methods_come_back(filling in filling(Text::Bytes), channel: u16) {
        for method in METHODS {
            let payload = filling.payload(method);
            let decoded = Method::decode(&payload).expect("a method of the specification");
            prop_assert_eq!(decoded.name(), method.2);
            prop_assert_eq!(decoded.ids(), (method.0, method.1));
            prop_assert_eq!(payload_of(&decoded, channel), payload);
        }
    }

    #[test]
    fn publish_is_read_alike_in_place_and_in_full(filling in filling(Text::Bytes)) {
        for method in METHODS {
            let payload = filling.payload(method);
            let Method::BasicPublish { exchange, routing_key, mandatory, immediate } =
                Method::decode(&payload).expect("a method of the specification")
            else {
                prop_assert!(!is_publish(&payload));
                prop_assert!(decode_publish(&payload).is_err());
                continue;
            };
            prop_assert!(is_publish(&payload));
            let publish = decode_publish(&payload).expect("a publish");
            prop_assert_eq!((publish.exchange, publish.routing_key), (&*exchange, &*routing_key));
            prop_assert_eq!((publish.mandatory, publish.immediate), (mandatory, immediate));
        }
    }

    #[test]
    fn tables_come_back(table in table(Text::Bytes)) {
        let mut body = Vec::new();
        put_table(&mut body, &table);
        let decoded = decode_table(&body[4..]).expect("within the limits");
        prop_assert!(same(&decoded, &table));

        let entries: Vec<_> = table_entries(&body[4..]).map(|(key, tag, _)| (key, tag)).collect();
        let expected: Vec<_> = table.iter().map(|(key, value)| (&**key, value.tag())).collect();
        prop_assert_eq!(entries, expected);
    }

    #[test]
    fn properties_come_back(properties in properties(Text::Bytes)) {
        let raw = encoded(&properties);
        let decoded = Properties::decode(&raw).expect("sound");
        prop_assert_eq!(encoded(&decoded), &raw);

        let payload = header_payload(&raw);
        prop_assert_eq!(decode_content_header(&payload).expect("sound").properties, &raw[..]);
        let found = PropertiesRef::parse(&raw).expect("sound");
        prop_assert_eq!(found.reply_to, properties.reply_to.as_deref());
        prop_assert_eq!(found.timestamp, properties.timestamp);
        prop_assert_eq!(found.kind, properties.kind.as_deref());
        prop_assert_eq!(found.cluster_id, properties.cluster_id.as_deref());
    }

    #[test]
    fn cut_properties_are_refused(properties in properties(Text::Bytes)) {
        let raw = encoded(&properties);
        for cut in 0..raw.len() {
            prop_assert!(PropertiesRef::parse(&raw[..cut]).is_err());
            prop_assert!(decode_content_header(&header_payload(&raw[..cut])).is_err());
        }
    }

    /// A header that is accepted can be decoded later, and one that is refused cannot.
    #[test]
    fn check_and_decode_agree(
        properties in properties(Text::Bytes),
        spoilt: Vec<(prop::sample::Index, u8)>,
    ) {
        let mut raw = encoded(&properties).to_vec();
        for (place, octet) in spoilt.into_iter().take(3) {
            let place = place.index(raw.len());
            raw[place] = octet;
        }
        let payload = header_payload(&raw);
        let checked = decode_content_header(&payload).map(|_| ());
        prop_assert_eq!(checked, Properties::decode(&raw).map(|_| ()));
    }

    #[test]
    fn any_bytes_are_answered(input: Vec<u8>, class in 0_usize..METHODS.len()) {
        let (class, id, ..) = METHODS[class];
        let payload = [&class.to_be_bytes()[..], &id.to_be_bytes(), &input].concat();
        let _ = Method::decode(&payload);
        let _ = Method::decode(&input);
        let _ = decode_publish(&[&[0, 60, 0, 40][..], &input].concat());
        let _ = decode_ack(&[&[0, 60, 0, 80][..], &input].concat());
        let _ = decode_content_header(&input);
        let _ = decode_table(&input);
        let _ = next_frame(&input, 4096);
        let _ = table_entries(&input).count();
    }

    /// The same bytes in any pieces give the same frames.
    #[test]
    fn frames_do_not_depend_on_the_pieces(
        fillings in prop::collection::vec((filling(Text::Bytes), 0_usize..METHODS.len()), 1..5),
        cut: prop::sample::Index,
    ) {
        let mut stream = BytesMut::new();
        for (filling, method) in &fillings {
            let payload = filling.payload(&METHODS[*method]);
            Method::decode(&payload).expect("sound").encode(1, &mut stream);
        }
        let mut whole = 0;
        let mut rest = &stream[..];
        while let Some(frame) = next_frame(rest, u32::MAX).expect("sound") {
            rest = &rest[frame.wire_len()..];
            whole += 1;
        }
        prop_assert_eq!((whole, rest.len()), (fillings.len(), 0));

        let cut = cut.index(stream.len());
        let (mut pieces, mut taken) = (0, 0);
        for end in [cut, stream.len()] {
            while let Some(frame) = next_frame(&stream[taken..end], u32::MAX).expect("sound") {
                taken += frame.wire_len();
                pieces += 1;
            }
        }
        prop_assert_eq!((pieces, taken), (whole, stream.len()));
    }
}
