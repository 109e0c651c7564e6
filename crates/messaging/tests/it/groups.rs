//! Offsets of groups, from outside.

use messaging::admin::{self, Stranded};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use testkit::Env;

#[tokio::test]
async fn a_group_behind_the_end_of_a_topic_is_found_and_set_back_to_its_beginning() {
    let env = Env::bare("groups");
    env.create_topics(&["test.cut"], 2).await;
    let kafka = env.kafka();
    let (broker, topic, group) = (&kafka.bootstrap_servers, kafka.topic("test.cut"), kafka.group("reader"));
    let topics = [topic.clone()];
    let message = messaging::Record::unsent(&topic, Some(b"k".to_vec()), Some(b"v".to_vec()));
    admin::produce(broker, &topic, &[message]).await.expect("a message");
    let ends: Vec<i64> = admin::offsets(broker, &topic).await.expect("ends").into_iter().map(|(_, end)| end).collect();

    // What a group has committed on a topic that was longer before.
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", &group)
        .create()
        .expect("a client that joins no group");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(5000)).expect("an offset");
    offsets.add_partition_offset(&topic, 1, Offset::Offset(ends[1])).expect("an offset");
    member.commit(&offsets, CommitMode::Sync).expect("a commit");
    drop(member);

    let own = async || -> Vec<Stranded> {
        let stranded = admin::stranded_groups(broker, &topics).await.expect("the groups");
        stranded.into_iter().filter(|one| one.group == group).collect()
    };
    let expected = Stranded {
        group: group.clone(),
        topic: topic.clone(),
        partition: 0,
        committed: 5000,
        end: ends[0],
        in_use: false,
    };
    assert_eq!(own().await, [expected], "at the end is not behind it");
    admin::rewind_group(broker, &group, &topics).await.expect("the group is set back");
    assert_eq!(own().await, []);
    let offsets = admin::group_offsets(broker, &group, &topics).await.expect("offsets");
    assert_eq!(offsets.into_values().collect::<Vec<_>>(), [0, 0]);
}
