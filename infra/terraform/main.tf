# Bucket, least-privilege policies and a work pool for Foldcast.

terraform {
  required_version = ">= 1.6"
  required_providers {
    aws     = { source = "hashicorp/aws", version = "~> 5.0" }
    prefect = { source = "prefecthq/prefect", version = "~> 2.0" }
  }
}

variable "bucket" {
  description = "Name of the bucket that holds forecasts, checkpoints and products."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket the store's root is, with a slash at the end; settings.store.root names the same."
  type        = string
  default     = "prod/"
}

variable "keep_run_days" {
  description = "Days after which working data of runs (members, rollout checkpoints) expire."
  type        = number
  default     = 14
}

resource "aws_s3_bucket" "store" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket                  = aws_s3_bucket.store.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    id     = "expire-runs"
    status = "Enabled"
    filter {
      prefix = "${var.prefix}runs/"
    }
    expiration {
      days = var.keep_run_days
    }
  }

  rule {
    id     = "expire-analyses"
    status = "Enabled"
    filter {
      prefix = "${var.prefix}fields/"
    }
    expiration {
      days = var.keep_run_days
    }
  }

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# Writers: controllers and members. They list the bucket; read, write and delete below the prefix; and nothing else.
data "aws_iam_policy_document" "writer" {
  statement {
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.store.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.store.arn}/${var.prefix}*"]
  }
}

locals {
  readable = ["cycles/*", "catalog/*", "reports/*"]
}

# Readers see published cycles only: not the runs, checkpoints or quarantined data.
data "aws_iam_policy_document" "reader" {
  statement {
    actions   = ["s3:GetObject"]
    resources = [for part in local.readable : "${aws_s3_bucket.store.arn}/${var.prefix}${part}"]
  }
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for part in local.readable : "${var.prefix}${part}"]
    }
  }
}

resource "aws_iam_policy" "writer" {
  name   = "foldcast-writer"
  policy = data.aws_iam_policy_document.writer.json
}

resource "aws_iam_policy" "reader" {
  name   = "foldcast-reader"
  policy = data.aws_iam_policy_document.reader.json
}

locals {
  pools = {
    controller = "kubernetes-controller.json"
    gpu        = "kubernetes-gpu.json"
    tpu        = "kubernetes-tpu.json"
  }
  queues = { realtime = 1, backfill-control = 5, backfill = 10, training = 20 }
  places = merge([
    for pool in keys(local.pools) : {
      for queue, priority in local.queues : "${pool}/${queue}" => { pool = pool, queue = queue, priority = priority }
    }
  ]...)
}

resource "prefect_work_pool" "pool" {
  for_each          = local.pools
  name              = each.key
  type              = "kubernetes"
  base_job_template = file("${path.module}/../work_pools/${each.value}")
}

resource "prefect_work_queue" "queue" {
  for_each       = local.places
  name           = each.value.queue
  work_pool_name = prefect_work_pool.pool[each.value.pool].name
  priority       = each.value.priority
}

output "writer_policy_arn" {
  value = aws_iam_policy.writer.arn
}

output "reader_policy_arn" {
  value = aws_iam_policy.reader.arn
}
