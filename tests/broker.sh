#!/usr/bin/env bash
# Runs COUNT Kafka brokers with fresh data on 127.0.0.1 from PORT on, in the foreground.
# Usage: broker.sh COUNT PORT, with the jars in $SIDESTREAM_KAFKA_JARS (./dev broker sees to that).
set -euo pipefail
count=$1 port=$2
data=$(mktemp -d)
pids=()

finish() {
  trap - EXIT INT TERM
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait || true
  rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

voters='' servers=''
for ((n = 0; n < count; n++)); do
  for p in $((port + 2 * n)) $((port + 2 * n + 1)); do
    ! listening "$p" || { echo "port $p is taken; choose another first port: PORT=19092 ./dev broker" >&2; exit 1; }
  done
  voters+=,$((n + 1))@127.0.0.1:$((port + 2 * n + 1))
  servers+=,127.0.0.1:$((port + 2 * n))
done

for ((n = 0; n < count; n++)); do
  cat >"$data/$n.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$((n + 1))
controller.quorum.voters=${voters#,}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$((port + 2 * n)),CONTROLLER://127.0.0.1:$((port + 2 * n + 1))
log.dirs=$data/$n
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=5
offsets.topic.replication.factor=$count
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=$count
transaction.state.log.min.isr=$(((count + 1) / 2))
default.replication.factor=$count
PROPERTIES
  echo "formatting and starting broker $((n + 1)) of $count"
  java -Xshare:auto -cp "$SIDESTREAM_KAFKA_JARS/*" kafka.tools.StorageTool format -t c2lkZXN0cmVhbS1kZXYtMQ \
    -c "$data/$n.properties" >"$data/$n.log" 2>&1 || { cat "$data/$n.log" >&2; exit 1; }
  java -Xmx512m -XX:+UseSerialGC -cp "$SIDESTREAM_KAFKA_JARS/*" kafka.Kafka "$data/$n.properties" \
    >>"$data/$n.log" 2>&1 &
  pids+=($!)
done

for ((n = 0; n < count; n++)); do
  until listening $((port + 2 * n)); do
    kill -0 "${pids[n]}" 2>/dev/null || { cat "$data/$n.log" >&2; echo "broker $((n + 1)) ended" >&2; exit 1; }
    sleep 0.1
  done
done
echo "bootstrap.servers=${servers#,}"
echo "ready; Ctrl-C ends it"
wait -n
echo "a broker ended; its last words:" >&2
tail -n 20 "$data"/*.log >&2
exit 1
