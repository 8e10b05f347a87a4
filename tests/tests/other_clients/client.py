"""Sends records with a Python client, reads them back as a member of a group, and commits.

Prints how many different records came back, and the sums of the committed offsets and of the ends.
"""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

RECORDS = 50
PATIENCE_SECONDS = 30

servers, topic = sys.argv[1:3]
producer = KafkaProducer(bootstrap_servers=servers)
for number in range(RECORDS):
    producer.send(topic, key=b"k%d" % number, value=b"v%d" % number).get(PATIENCE_SECONDS)
producer.close()

consumer = KafkaConsumer(
    topic,
    bootstrap_servers=servers,
    group_id="python",
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    isolation_level="read_committed",
    consumer_timeout_ms=PATIENCE_SECONDS * 1000,
)
seen = set()
for record in consumer:
    seen.add((record.key, record.value))
    if len(seen) == RECORDS:
        break
consumer.commit()
partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
committed = sum(consumer.committed(partition) or 0 for partition in partitions)
ends = sum(consumer.end_offsets(partitions).values())
consumer.close()
print(len(seen), committed, ends)
