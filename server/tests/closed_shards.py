"""The emulator, with shards that close as those of Kinesis do.

ministack drops a shard when it is split or merged, with all that was not read of it. Here it stays, as on AWS:
listed, with an ending sequence number; readable to its end, where GetRecords gives no further iterator but names the
child shards. And GetRecords gives few records at a time, so that there is more to read behind them.
(SubscribeToShard of ministack ends only when a shard is dropped, so it is not for this one.)

    python closed_shards.py         takes the environment of ministack
"""

import json

from ministack import app
from ministack.services import kinesis

# In one answer of GetRecords.
RECORDS_PER_READ = 20


class Shards(dict):
    """Shards by id, closed instead of removed."""

    def __delitem__(self, shard_id):
        self[shard_id]["ended"] = kinesis._next_sequence_number()


def children(stream, shard_id):
    for child_id, child in stream["shards"].items():
        parents = [p for p in (child["parent_shard_id"], child["adjacent_parent_shard_id"]) if p]
        if shard_id in parents:
            yield {
                "ShardId": child_id,
                "ParentShards": parents,
                "HashKeyRange": {
                    "StartingHashKey": child["starting_hash_key"], "EndingHashKey": child["ending_hash_key"],
                },
            }


def build_shards(*args, original=kinesis._build_shards):
    return Shards(original(*args))


def route_to_shard(hash_key, stream, original=kinesis._route_to_shard):
    is_open = {shard_id: shard for shard_id, shard in stream["shards"].items() if "ended" not in shard}
    return original(hash_key, {"shards": is_open})


def shard_out(shard_id, shard, original=kinesis._shard_out):
    shown = original(shard_id, shard)
    if "ended" in shard:
        shown["SequenceNumberRange"]["EndingSequenceNumber"] = shard["ended"]
    return shown


def get_records(data, original=kinesis._get_records):
    status, headers, body = original(data | {"Limit": RECORDS_PER_READ})
    if status != 200:
        return status, headers, body
    answer = json.loads(body)
    after = kinesis._shard_iterators[answer["NextShardIterator"]]
    stream = kinesis._streams[after["stream"]]
    shard = stream["shards"][after["shard_id"]]
    if "ended" in shard and after["position"] >= len(shard["records"]):
        answer["NextShardIterator"] = None
        answer["ChildShards"] = list(children(stream, after["shard_id"]))
    return status, headers, json.dumps(answer).encode()


kinesis._build_shards = build_shards
kinesis._route_to_shard = route_to_shard
kinesis._shard_out = shard_out
kinesis._get_records = get_records

if __name__ == "__main__":
    app.main()
