error: iam_role: "arn\\" holds '\\', which cannot stand in it
