error: iam_role: in which role may Redshift read the staged files? write its ARN, or default
