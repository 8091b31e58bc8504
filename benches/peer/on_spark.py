"""Spark Structured Streaming: local[1], one shuffle partition, JSON files with a schema, Trigger.AvailableNow, watermark of
5 s, update mode into foreachBatch (the file is one micro-batch, so each window comes once and the last ones, too; append mode
would keep those back). The clickthrough counts the union of both streams: two aggregates and a join cost Spark more."""

import os
import tempfile

import pyspark
from common import COLUMNS, OUT_OF_ORDER, main
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.memory", "4g")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.log.level", "ERROR")
    .getOrCreate()
)


def stream(directory, source):
    schema = ", ".join(f"{column} STRING" for column in COLUMNS[source]) + ", occurred_at TIMESTAMP"
    reader = spark.readStream.schema(schema).option("timestampFormat", "yyyy-MM-dd HH:mm:ss.SSS")
    # A pattern: it reads no single file by its name.
    return reader.json(f"{directory}/{source}*.jsonl").withWatermark("occurred_at", f"{OUT_OF_ORDER} seconds")


def counted(query, directory):
    rows = stream(directory, "impressions")
    minute = f.window("occurred_at", "1 minute")
    at = f.date_format("window.start", "yyyy-MM-dd HH:mm:ss").alias("at")
    if query == "minute":
        return rows.groupBy(minute).count().select(at, f.col("count").alias("n"))
    if query == "ad":
        return rows.groupBy(minute, "ad_id").count().select(at, "ad_id", f.col("count").alias("n"))
    if query == "hop":
        hours = f.window("occurred_at", "60 minutes", "1 minute")
        return rows.groupBy(hours, "country").count().select(at, "country", f.col("count").alias("n"))
    views = rows.select("occurred_at", f.lit(1).alias("i"), f.lit(0).alias("c"))
    clicks = stream(directory, "clicks").select("occurred_at", f.lit(0).alias("i"), f.lit(1).alias("c"))
    both = views.union(clicks).groupBy(minute).agg(f.sum("i").alias("impressions"), f.sum("c").alias("clicks"))
    return both.select(at, "impressions", "clicks", (f.col("clicks") / f.col("impressions")).alias("clickthrough"))


def run(query, directory, file):
    def write(rows, _):
        with open(file, "a") as to:
            for line in rows.toJSON().collect():
                to.write(line + "\n")

    with tempfile.TemporaryDirectory(dir=file.parent) as checkpoint:
        writer = counted(query, directory).writeStream.outputMode("update").foreachBatch(write)
        started = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True).start()
        started.awaitTermination()


main(f"Spark Structured Streaming {pyspark.__version__}", run)
