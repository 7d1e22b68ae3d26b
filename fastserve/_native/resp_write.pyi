from fastserve.online.resp_write_py import Replies as Replies
from fastserve.online.resp_write_py import encode_command as encode_command
from fastserve.online.resp_write_py import encode_fresh as encode_fresh
from fastserve.online.resp_write_py import encode_publish as encode_publish
from fastserve.online.resp_write_py import encode_script as encode_script
from fastserve.online.resp_write_py import rows_end as rows_end
