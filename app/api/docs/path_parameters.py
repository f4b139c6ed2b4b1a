"""What the names in the routes' paths stand for, one meaning each."""

_NAMES = {
    "alias": ("a name that stands for a version, or for several by weight", "champion"),
    "base_model": ("a base model's name", "smollm2-135m-instruct"),
    "dataset_id": ("a dataset's id", "ds-0123456789abcdef01234567"),
    "file_id": ("a file's id: a dataset's, or of a job's results", "ds-0123456789abcdef01234567"),
    "job_id": ("a job's id", "ftjob-0123456789abcdef01234567"),
    "key_id": ("an API key's id, which is not the key", "key-0123456789abcdef01234567"),
    "model": ("a model's id, as the list shows it", "ft:smollm2-135m-instruct:default:support-assistant:1"),
    "name": ("a published model's name", "support-assistant"),
    "number": ("a version's number", "1"),
    "project_id": ("a project's id", "support"),
    "reference": ("a published version: `name:number`, `name@alias`, or a bare name", "support-assistant:1"),
    "tag": ("a name that stands for one version of the dataset", "reviewed"),
    "task_id": ("a fine-tuning job's id", "ftjob-0123456789abcdef01234567"),
    "username": ("a user's or a service account's name", "alice"),
    "webhook_id": ("a webhook's id", "wh-0123456789abcdef01234567"),
}
PATH_PARAMETERS = {
    name: {"description": description, "example": example} for name, (description, example) in _NAMES.items()
}
